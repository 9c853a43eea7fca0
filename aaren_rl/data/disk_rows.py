"""Arrays that stay on the disk and are read like numpy's: by slices and by row numbers."""

from __future__ import annotations

import mmap
import os
import resource
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

WORD = 4  # bytes; every part of a record begins and ends at one
MOST_ROWS_AT_ONCE = 1 << 14  # of a long slice
READS_BETWEEN_RELEASES = 256
CONTAINER_LIMIT = Path("/sys/fs/cgroup/memory.max")


def memory_bytes() -> int:
    """Memory that this process can hope for: the machine's, its container's or its own limit."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    own, _ = resource.getrlimit(resource.RLIMIT_DATA)
    if own != resource.RLIM_INFINITY:
        limits.append(own)
    if CONTAINER_LIMIT.is_file() and (text := CONTAINER_LIMIT.read_text().strip()).isdigit():
        limits.append(int(text))
    return min(limits)


class RowFile:
    """A file of equal records of words, mapped into memory; the system keeps what it has room for.

    A file that memory may not hold is read by announced pages, all of a batch at once, and its
    pages are let go again; a smaller one is left to the system, which will soon hold all of it.

    Args:
        path: the file.
        words: 4-byte words of a record.
    """

    def __init__(self, path: Path, words: int) -> None:
        mapped = np.memmap(path, dtype=np.uint32, mode="r").reshape(-1, words)
        self.words: NDArray[np.uint32] = np.asarray(mapped)
        self._map: Any = mapped._mmap  # type: ignore[attr-defined]
        self._row_bytes = WORD * words
        self._large = self.words.nbytes > memory_bytes() // 2 and hasattr(self._map, "madvise")
        if self._large:
            self._map.madvise(mmap.MADV_RANDOM)
        self._last: tuple[NDArray[np.int64], NDArray[np.uint32]] | None = None
        self._reads = 0

    def read(self, rows: NDArray[np.int64]) -> NDArray[np.uint32]:
        """Records by number, `[*rows.shape, words]`; not to be written to."""
        last = self._last  # all fields of a batch are asked for the same rows, one by one
        if last is not None and np.array_equal(last[0], rows):
            return last[1]
        if self._large and rows.size:
            self._announce(rows)
        records = self.words.take(rows, axis=0)
        self._last = rows.copy(), records
        self._reads += 1
        if self._large and (rows.ndim < 2 or self._reads % READS_BETWEEN_RELEASES == 0):
            self._map.madvise(mmap.MADV_DONTNEED)  # from this process; the system may keep them
        return records

    def _announce(self, rows: NDArray[np.int64]) -> None:
        """Have each run of neighbouring rows (the last axis) read ahead, without waiting."""
        runs = rows.reshape(-1, rows.shape[-1]) if rows.ndim else rows.reshape(1, 1)
        for first, last in zip(runs.min(axis=1).tolist(), runs.max(axis=1).tolist(), strict=True):
            if last - first < 2 * MOST_ROWS_AT_ONCE:  # else no neighbours
                start = first * self._row_bytes // mmap.PAGESIZE * mmap.PAGESIZE
                length = (last + 1) * self._row_bytes - start
                self._map.madvise(mmap.MADV_WILLNEED, start, length)


class RowMap:
    """Where the rows of chosen episodes lie: rows 0, 1, ... of the choice in rows of the file.

    Args:
        first: int64 `[episodes]`, where each episode begins in the file.
        lengths: int64 `[episodes]`, their rows, one after the other.
    """

    def __init__(self, first: NDArray[np.int64], lengths: NDArray[np.int64]) -> None:
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        shift = first - offsets[:-1]
        # Episodes that are neighbours in the file as well are one piece.
        begins = np.flatnonzero(np.diff(shift, prepend=shift[0] - 1))
        self.rows = int(offsets[-1])
        self._starts, self._shift = offsets[:-1][begins], shift[begins]
        self._last: tuple[NDArray[np.int64], NDArray[np.int64]] | None = None

    def __call__(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Rows of the file for rows of the choice, of any shape."""
        last = self._last
        if last is not None and np.array_equal(last[0], rows):
            return last[1]
        piece = np.searchsorted(self._starts, rows, side="right") - 1
        found = np.asarray(rows + self._shift[piece])
        self._last = rows.copy(), found
        return found


class DiskRows:
    """One field of chosen rows of a file; reads as an array does, and always gives copies.

    Args:
        file: the file.
        rows: the choice.
        words: where the field is in a record.
        stored: dtype of its values in the file.
        dtype: of the values that are given.
        single: one value a row, `[rows]`, where else it is `[rows, values]`.
    """

    def __init__(
        self, file: RowFile, rows: RowMap, words: slice, stored: Any, dtype: Any, single: bool
    ) -> None:
        self._file, self._rows, self._words, self._single = file, rows, words, single
        self._stored, self.dtype = np.dtype(stored), np.dtype(dtype)
        values = (words.stop - words.start) * WORD // self._stored.itemsize
        self.shape: tuple[int, ...] = (rows.rows,) if single else (rows.rows, values)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Rows by number, slice or array of numbers; `[:, columns]` is a `DiskRows` again."""
        if isinstance(key, tuple):
            rows, columns = key
            return self._columns(columns) if rows == slice(None) else self[rows][..., columns]
        if isinstance(key, slice):
            return self._slice(np.arange(*key.indices(len(self))))
        return self.take(np.asarray(key, np.int64))

    def take(self, indices: NDArray[np.int64], axis: int = 0) -> NDArray[Any]:
        """Rows by number, `[*indices.shape, ...]`; the same as numpy's `take` along axis 0."""
        if axis != 0:
            raise ValueError(f"axis {axis}: rows alone can be taken")
        if indices.size and not -len(self) <= indices.min() <= indices.max() < len(self):
            raise IndexError(f"rows {indices.min()} to {indices.max()} of {len(self)}")
        rows = self._rows(np.where(indices < 0, indices + len(self), indices))
        field = self._file.read(rows)[..., self._words].copy().view(self._stored)
        values = field[..., 0] if self._single else field
        return np.asarray(values.astype(self.dtype, order="C", copy=False))

    def _slice(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Many rows, piece by piece."""
        result = np.empty((len(rows), *self.shape[1:]), self.dtype)
        for start in range(0, len(rows), MOST_ROWS_AT_ONCE):
            part = slice(start, start + MOST_ROWS_AT_ONCE)
            result[part] = self.take(rows[part])
        return result

    def _columns(self, columns: slice) -> DiskRows:
        """Neighbouring values of every row."""
        first, stop, step = columns.indices(self.shape[1])
        if step != 1:
            raise ValueError(f"columns {columns}: neighbours expected")
        size = self._stored.itemsize // WORD
        begin = self._words.start
        words = slice(begin + first * size, begin + max(first, stop) * size)
        return DiskRows(self._file, self._rows, words, self._stored, self.dtype, False)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def copy(self) -> DiskRows:
        """Itself: it cannot be written to."""
        return self

    def row_map(self, offsets: NDArray[np.int64], episodes: NDArray[np.int64]) -> RowMap:
        """Where the rows of these episodes, in this order, lie in the file; nothing is read.

        Args:
            offsets: int64 `[all episodes + 1]`, where episodes begin and end in these rows.
            episodes: int64 `[chosen episodes]`.
        """
        return RowMap(self._rows(offsets[episodes]), np.diff(offsets)[episodes])

    def with_rows(self, rows: RowMap) -> DiskRows:
        """The same field of other rows of the file."""
        stored, single = self._stored, self._single
        return DiskRows(self._file, rows, self._words, stored, self.dtype, single)

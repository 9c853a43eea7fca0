"""Arrays that read as numpy's: chosen rows of a file, and columns of several dtypes."""

from __future__ import annotations

import copy
import mmap
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

RESIDENT_BYTES = 1 << 27
PAGE_BYTES = 4096


class MappedFile:
    """A file mapped into memory, whose pages are released after many of them were read.

    Mapped pages count as this process' memory; released, they stay in the operating system's cache.
    """

    def __init__(self, file: Path) -> None:
        with open(file, "rb") as opened:
            self._map = mmap.mmap(opened.fileno(), 0, access=mmap.ACCESS_READ)
        self._read = 0

    def array(self, record: np.dtype[Any]) -> NDArray[Any]:
        """The whole file as `record`s, read-only."""
        return np.frombuffer(self._map, record)

    def has_read(self, rows: int, row_bytes: int) -> None:
        """Count rows that were read; release the pages after `RESIDENT_BYTES`."""
        self._read += rows * max(row_bytes, PAGE_BYTES)
        if self._read > RESIDENT_BYTES and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)
            self._read = 0


class Rows:
    """Runs of rows of a memory-mapped array, read as one array is; what is read is a copy.

    A numpy array of chosen rows would be a copy in memory. This keeps only where each run begins.

    Args:
        array: `[rows of the file, ...]`, usually a field of a `np.memmap`.
        first: int64 `[runs]`, the row of the file where each run begins.
        lengths: int64 `[runs]`, the rows of each run; one run follows the other.
        file: where the array lies.
    """

    def __init__(
        self,
        array: NDArray[Any],
        first: NDArray[np.int64],
        lengths: NDArray[np.int64],
        file: MappedFile | None = None,
    ) -> None:
        self._array, self._file = array, file
        self._starts = np.cumsum(lengths) - lengths  # of each run among the chosen rows
        self._shift = first - self._starts
        self.dtype = array.dtype
        self.shape: tuple[int, ...] = (int(lengths.sum()), *array.shape[1:])

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> Any:
        """Rows by number, slice or array of numbers; `[:, columns]` is a `Rows` again."""
        if isinstance(key, tuple):
            if isinstance(key[0], slice) and key[0] == slice(None):
                other = copy.copy(self)
                other._array = self._array[key]
                other.shape = (len(self), *other._array.shape[1:])
                return other
            return self[key[0]][(..., *key[1:])]
        if isinstance(key, slice):
            key = np.arange(*key.indices(len(self)))
        return self.take(np.asarray(key))

    def take(self, indices: NDArray[np.integer], axis: int = 0) -> NDArray[Any]:
        """Rows by number, `[*indices.shape, ...]`, as numpy's `take` along axis 0."""
        rows = np.asarray(self._array[self._in_file(indices)])
        if self._file is not None:
            self._file.has_read(indices.size, self._array.strides[0])
        return rows

    def _in_file(self, indices: NDArray[np.integer]) -> NDArray[np.int64]:
        """Rows of the file for rows of the choice."""
        size = len(self)
        if indices.size and not -size <= indices.min() <= indices.max() < size:
            raise IndexError(f"rows {indices.min()} to {indices.max()} of {size}")
        rows = np.where(indices < 0, indices + size, indices)
        return rows + self._shift[np.searchsorted(self._starts, rows, side="right") - 1]

    def runs(self, first: NDArray[np.int64], lengths: NDArray[np.int64]) -> Rows:
        """Runs of these rows (first row and length of each), contiguous in the file as well."""
        begin = self._in_file(first)
        # Runs that are neighbours in the file as well are one run.
        heads = np.flatnonzero(np.append(True, begin[1:] != begin[:-1] + lengths[:-1]))
        return Rows(self._array, begin[heads], np.add.reduceat(lengths, heads), self._file)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)

    def copy(self) -> Rows:
        """Itself, since it cannot be written to."""
        return self


class Columns:
    """Several arrays or `Rows` as one float32 array `[rows, columns]`; what is read is a copy.

    Args:
        arrays: `[rows, columns]` each, in order; their numbers must be exact in float32.
    """

    dtype = np.dtype(np.float32)

    def __init__(self, arrays: Sequence[Any]) -> None:
        self.arrays = tuple(arrays)
        self.shape = (len(self.arrays[0]), sum(each.shape[1] for each in self.arrays))

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, key: Any) -> NDArray[Any]:
        """Rows by number, slice or array of numbers; then columns: `[rows, columns]`."""
        rows, *columns = key if isinstance(key, tuple) else (key,)
        beside = np.concatenate([each[rows] for each in self.arrays], axis=-1, dtype=np.float32)
        return beside[(..., *columns)]

    def take(self, indices: NDArray[np.integer], axis: int = 0) -> NDArray[np.float32]:
        """Rows by number, `[*indices.shape, columns]`, as numpy's `take` along axis 0."""
        parts = [each.take(indices, axis=axis) for each in self.arrays]
        return np.concatenate(parts, axis=-1, dtype=np.float32)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def runs_of(array: Any) -> tuple[Any, ...]:
    """The arrays that `side_by_side` was given."""
    return array.arrays if isinstance(array, Columns) else (array,)


def side_by_side(arrays: Sequence[Any]) -> Any:
    """The array itself if there is one, else `Columns` of them."""
    return arrays[0] if len(arrays) == 1 else Columns(arrays)


def map_runs(function: Callable[[Any], Any], array: Any) -> Any:
    """The function of an array, or of each array in `Columns`."""
    return side_by_side([function(each) for each in runs_of(array)])


def row_numbers(first: NDArray[np.int64], lengths: NDArray[np.int64]) -> NDArray[np.int64]:
    """The rows of runs, given the first row and the length of each: int64 `[rows]`."""
    starts = np.cumsum(lengths) - lengths
    return np.arange(lengths.sum()) + np.repeat(first - starts, lengths)


def take_runs(array: Any, first: NDArray[np.int64], lengths: NDArray[np.int64]) -> Any:
    """Runs of rows of an array, of `Rows` (which are not read) or of `Columns` of these."""

    def take(each: Any) -> Any:
        if isinstance(each, Rows):
            return each.runs(first, lengths)
        return each[row_numbers(first, lengths)]

    return map_runs(take, array)


def widened(rows: NDArray[Any]) -> NDArray[Any]:
    """Numbers of narrow dtypes as float32; images stay uint8."""
    narrow = rows.dtype.itemsize < 4 and rows.dtype != np.uint8
    return rows.astype(np.float32) if narrow else rows

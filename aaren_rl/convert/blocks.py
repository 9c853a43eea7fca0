"""Arrays of HDF5 files read and written in blocks, whatever the pieces that are asked for."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aaren_rl.data.sources.hdf5 import read_array

BLOCK_BYTES = 1 << 20
Compression = dict[str, Any]
"""Arguments of h5py's `create_dataset`."""


def compression(name: str) -> Compression:
    """`gzip` or `none` as h5py says it."""
    return {"compression": "gzip", "compression_opts": 4, "shuffle": True} if name == "gzip" else {}


def block_rows(node: h5py.Dataset) -> int:
    """Rows of an array that make a block."""
    row = int(np.prod(node.shape[1:], dtype=np.int64)) * node.dtype.itemsize
    return max(1, BLOCK_BYTES // max(row, 1))


class Reader:
    """Rows of one array, in order; keeps the block that was read last.

    Args:
        where: what errors name.
        node: `[rows, ...]`.
    """

    def __init__(self, where: str, node: h5py.Dataset) -> None:
        self.node, self._where, self._rows = node, where, block_rows(node)
        self._start = 0
        self._block: NDArray[Any] = np.empty((0, *node.shape[1:]), node.dtype)

    def pieces(self, start: int, stop: int) -> Iterator[NDArray[Any]]:
        """Rows `start` up to `stop`, a block or less at a time.

        Raises:
            UserError: the file is broken there.
        """
        while start < stop:
            if not self._start <= start < self._start + len(self._block):
                self._start = start - start % self._rows
                rows = slice(self._start, self._start + self._rows)
                self._block = read_array(self._where, self.node, rows)
            piece = self._block[start - self._start : stop - self._start]
            yield piece
            start += len(piece)

    def row(self, number: int) -> NDArray[Any]:
        """One row."""
        [piece] = self.pieces(number, number + 1)
        return np.asarray(piece[0])

    def rows(self, start: int, stop: int) -> NDArray[Any]:
        """Rows `start` up to `stop` in one; for few rows."""
        return np.concatenate([self._block[:0], *self.pieces(start, stop)])


class Writer:
    """Appends rows to an array of known length, a block at a time.

    Args:
        group: where the array is made.
        name: of the array.
        shape: `[rows, ...]` in the end.
        dtype: of the array.
        options: see `compression`.
    """

    def __init__(
        self, group: h5py.Group, name: str, shape: tuple[int, ...], dtype: Any, options: Compression
    ) -> None:
        chunked = options if shape[0] else {}
        self.node = group.create_dataset(name, shape, dtype, **chunked)
        self._rows = block_rows(self.node)
        self._waiting: list[NDArray[Any]] = []
        self._count = self.written = 0

    def append(self, rows: NDArray[Any]) -> None:
        """Take rows; they are written sooner or later."""
        self._waiting.append(np.array(rows))
        self._count += len(rows)
        if self._count >= self._rows:
            self.flush()

    def flush(self) -> None:
        """Write what waits. Rows behind the end are counted, in `written`, and not kept."""
        if 0 < self._count <= len(self.node) - self.written:
            rows = np.concatenate(self._waiting)
            self.node[self.written : self.written + self._count] = rows
        self.written += self._count
        self._waiting, self._count = [], 0


def write_rows(
    group: h5py.Group,
    name: str,
    reader: Reader,
    span: tuple[int, int],
    options: Compression,
    last: NDArray[Any] | None = None,
    dtype: Any = None,
) -> None:
    """Make an array of a reader's rows.

    Args:
        group: where.
        name: of the array.
        reader: of the rows.
        span: the first row, and one behind the last.
        options: see `compression`.
        last: one more row, behind the others.
        dtype: for arrays of one value a row: make them flat, and of this type.
    """
    start, stop = span
    inner = () if dtype is not None else reader.node.shape[1:]
    shape = (stop - start + (last is not None), *inner)
    writer = Writer(group, name, shape, dtype or reader.node.dtype, options)
    for piece in reader.pieces(start, stop):
        writer.append(piece.reshape(len(piece), *inner))
    if last is not None:
        writer.append(last[None])
    writer.flush()


def arrays_below(group: h5py.Group) -> dict[str, h5py.Dataset]:
    """All arrays in a group and its groups, by path from there."""
    found: dict[str, h5py.Dataset] = {}

    def keep(name: str, node: Any) -> None:
        if isinstance(node, h5py.Dataset):
            found[name] = node

    group.visititems(keep)
    return found

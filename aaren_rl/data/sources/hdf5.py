"""HDF5 files, with one-line errors for broken ones."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aaren_rl.errors import UserError, one_line


@contextmanager
def open_hdf5(path: Path) -> Iterator[h5py.File]:
    """Open a file for reading, for the length of a `with` block.

    Raises:
        UserError: the file is missing, not allowed to be read, being written by another process,
            not HDF5, cut short, or broken where the block reads it.
    """
    try:
        # best-effort: network folders without locks are read without
        with h5py.File(path, "r", locking="best-effort") as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py's, by what is broken
        raise UserError(f"{path}: {_what_is_wrong(path, error)}") from error


def is_meant_as_hdf5(path: Path) -> bool:
    """Whether a file begins as HDF5 does, or is called so; it may be broken."""
    return path.suffix in (".hdf5", ".h5") or h5py.is_hdf5(path)


def _what_is_wrong(path: Path, error: Exception) -> str:
    """A sentence that holds h5py's message."""
    text, number = one_line(error), getattr(error, "errno", None)
    if "unable to lock file" in text or "already open for" in text:
        return f"in use: another process is writing this HDF5 file; wait until it is done ({text})"
    if isinstance(error, PermissionError) or number == errno.EACCES:
        return f"cannot be read ({os.strerror(errno.EACCES)})"
    if path.is_dir():
        return "a folder; an HDF5 file expected"
    return f"a whole HDF5 file expected, this one is corrupt or cut short: {text}"


def read_array(where: str, node: h5py.Dataset, rows: slice | None = None) -> NDArray[Any]:
    """A whole array, a single value as one row, or some rows; errors begin with `where`."""
    try:
        return np.atleast_1d(node[()] if rows is None else node[rows])
    except (OSError, RuntimeError, ValueError, TypeError) as error:
        raise UserError(
            f"{where}: does not read, the file is corrupt or cut short: {one_line(error)}"
        ) from error


class ArrayReader:
    """Reads many small arrays in about a third of the time of `file[name][()]`.

    h5py's high-level objects take 100 us an array, and a file may have 20,000 one-step episodes.

    Args:
        file: open for reading.
    """

    def __init__(self, file: h5py.File) -> None:
        self._file = file.id
        self._dtypes: dict[str, tuple[Any, Any, np.dtype[Any]]] = {}  # by field, of the last one

    def group(self, name: str) -> h5py.h5g.GroupID | None:
        """A group, or None where there is none of this name."""
        try:
            return h5py.h5g.open(self._file, name.encode())
        except (KeyError, ValueError):
            return None

    def array(self, group: h5py.h5g.GroupID, field: str) -> NDArray[Any]:
        """An array of a group; `UserError` where there is none, or the file is broken there."""
        try:
            node = h5py.h5d.open(group, field.encode())
        except (KeyError, TypeError, ValueError):
            path = group_name(group)
            if field.encode() not in group:
                raise UserError(f"field {field!r} missing in {path}") from None
            raise UserError(f"{path}/{field} is a group; an array expected") from None
        try:
            stored = node.get_type()
            known = self._dtypes.get(field)
            if known is None or not known[0].equal(stored):
                known = stored, h5py.h5t.py_create(node.dtype), node.dtype
                self._dtypes[field] = known
            values = np.empty(node.shape, known[2])
            node.read(h5py.h5s.ALL, h5py.h5s.ALL, values, known[1])
        except (OSError, RuntimeError, ValueError, TypeError) as error:
            raise UserError(
                f"{field}: does not read, the file is corrupt or cut short: {one_line(error)}"
            ) from error
        return values if values.ndim else values.reshape(1)


def group_name(group: h5py.h5g.GroupID) -> str:
    """The group's path in the file."""
    return bytes(h5py.h5i.get_name(group)).decode()

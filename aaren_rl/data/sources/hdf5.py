"""HDF5 files opened so that what is wrong with them is said in one line."""

from __future__ import annotations

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
        UserError: the file is missing, not HDF5, cut short, or broken where the block reads it.
    """
    try:
        with h5py.File(path, "r") as file:
            yield file
    except UserError:
        raise
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (OSError, RuntimeError, KeyError, ValueError) as error:  # h5py's, by what is broken
        raise UserError(
            f"{path}: a whole HDF5 file expected, this one is corrupt or cut short: "
            f"{one_line(error)}"
        ) from error


def read_array(where: str, node: h5py.Dataset, rows: slice | None = None) -> NDArray[Any]:
    """A whole array, a single value as one row, or some rows of an array.

    Raises:
        UserError: its part of the file is broken; the message begins with `where`.
    """
    try:
        return np.atleast_1d(node[()] if rows is None else node[rows])
    except (OSError, RuntimeError, ValueError) as error:
        raise UserError(
            f"{where}: does not read, the file is corrupt or cut short: {one_line(error)}"
        ) from error

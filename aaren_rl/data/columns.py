"""Arrays of several dtypes side by side, read as one: a picture's bytes beside a robot's floats."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


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
        return _beside([each[rows] for each in self.arrays])[(..., *columns)]

    def take(self, indices: NDArray[np.integer], axis: int = 0) -> NDArray[np.float32]:
        """Rows by number, `[*indices.shape, columns]`, as numpy's `take` along axis 0."""
        return _beside([each.take(indices, axis=axis) for each in self.arrays])

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return np.asarray(self[:], dtype)


def _beside(arrays: list[NDArray[Any]]) -> NDArray[np.float32]:
    return np.concatenate(arrays, axis=-1, dtype=np.float32)


def runs_of(array: Any) -> tuple[Any, ...]:
    """The arrays that `side_by_side` was given."""
    return array.arrays if isinstance(array, Columns) else (array,)


def side_by_side(arrays: Sequence[Any]) -> Any:
    """The array itself if there is one, else `Columns` of them."""
    return arrays[0] if len(arrays) == 1 else Columns(arrays)


def map_runs(function: Callable[[Any], Any], array: Any) -> Any:
    """The function of an array, or of each array in `Columns`."""
    return side_by_side([function(each) for each in runs_of(array)])

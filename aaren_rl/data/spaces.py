"""Batches of elements of Gymnasium spaces: arrays, or dictionaries or tuples of arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.episode import READ_BYTES, READ_STEPS
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout, as_array


def flat_size(space: spaces.Space[Any]) -> int:
    """Number of values of one element in `flatten_batch`; `UserError` for text and the like."""
    return sum(int(spaces.flatdim(leaf.space)) for leaf in Layout.of(space).leaves)


def flatten_batch(
    space: spaces.Space[Any], batch: Any, dtype: type[np.floating[Any]] = np.float32
) -> NDArray[Any]:
    """Flatten a batch of elements of `space`, as `gymnasium.spaces.flatten` does for each one.

    Args:
        space: the space of one element.
        batch: `[rows, *space.shape]`; for a Dict or Tuple space a dictionary or tuple of batches.
        dtype: of the result, `[rows, flat_size(space)]`; discrete parts are one-hot.

    Raises:
        UserError: the space has no flat form, or the batch does not have its shape.
    """
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        try:
            parts = [(part, batch[key]) for key, part in parts_of(space).items()]
        except (KeyError, IndexError, TypeError):
            raise UserError(f"parts that do not fit {space}") from None
        columns = [flatten_batch(part, values, dtype) for part, values in parts]
        rows = sorted({len(column) for column in columns})
        if len(rows) > 1:
            raise UserError(f"parts of {rows[0]} and of {rows[-1]} rows; equal numbers expected")
        return np.concatenate(columns, axis=1)
    leaf = Layout.of(space).leaves[0]
    values = leaf.rows(batch)
    if leaf.levels and not isinstance(space, spaces.MultiBinary):
        pairs = zip(leaf.levels, values.T, strict=True)
        one_hot = [np.eye(n, dtype=dtype)[column] for n, column in pairs]
        return np.concatenate(one_hot, axis=1)
    with np.errstate(over="ignore"):  # what does not fit becomes infinite; datasets refuse that
        return values.astype(dtype, copy=False)


def numbers(values: Any) -> NDArray[Any]:
    """`values` as an array of booleans, integers or floats; `UserError` for others."""
    try:
        array = as_array(values)
    except ValueError:
        raise UserError("rows of different lengths; equal lengths expected") from None
    if array.dtype.kind not in "biuf":
        raise UserError(f"values of type {array.dtype}: numbers expected")
    if np.ma.is_masked(values):
        raise UserError("masked values; numbers expected")
    return array


def flags(values: Any) -> NDArray[np.bool_]:
    """Flat flags from an array of any numbers; `UserError` unless all are 0 or 1."""
    found = numbers(values).reshape(-1)
    if found.dtype != np.bool_ and not np.isin(found, (0, 1)).all():
        raise UserError("other values than 0 and 1; flags expected")
    return found.astype(bool, copy=False)


def shaped(space: spaces.Space[Any], values: Any) -> Any:
    """Flat rows of a space without parts in its shape; other values as given."""
    if isinstance(values, (dict, tuple)) or isinstance(space, (spaces.Dict, spaces.Tuple)):
        return values
    values, shape = numbers(values), space.shape or ()
    flat = values.ndim < 3 or len(shape) < 2
    if flat and values.ndim and values.size == len(values) * math.prod(shape):
        return values.reshape(len(values), *shape)
    return values


def read_rows(values: Any) -> int:
    """How many rows to read and check together: `READ_STEPS`, fewer where a row is large."""
    sizes: list[int] = []

    def measure(part: Any) -> None:
        shape = getattr(part, "shape", ())[1:]
        sizes.append(math.prod(shape) * getattr(part, "dtype", np.dtype(float)).itemsize)

    map_arrays(measure, values)
    return max(1, min(READ_STEPS, READ_BYTES // max(1, sum(sizes))))


def one_a_step(values: Any) -> NDArray[Any]:
    """Numbers of shape `[T]` or `[T, 1]` as `[T]`."""
    array = numbers(values)
    if array.ndim == 0 or array.size != len(array):
        raise UserError(f"shape {list(array.shape)}; one value a step expected")
    return array.reshape(-1)


def check_finite(values: NDArray[Any]) -> None:
    """Raise UserError that names the first row with a NaN or an infinity, if there is one."""
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise UserError(f"NaN or infinity at step {row}; finite numbers expected")


def map_arrays(function: Callable[[Any], Any], values: Any) -> Any:
    """The function of an array, or of each array in a dictionary or tuple of arrays.

    Raises:
        UserError: an empty dictionary or tuple.
    """
    if isinstance(values, (dict, tuple)) and not values:
        raise UserError(f"an empty {type(values).__name__}; arrays expected in it")
    if isinstance(values, dict):
        return {key: map_arrays(function, part) for key, part in values.items()}
    if isinstance(values, tuple):
        return tuple(map_arrays(function, part) for part in values)
    return function(values)


def row_count(values: Any) -> int:
    """Rows of an array, or of the first array in a dictionary or tuple of arrays."""
    while isinstance(values, (dict, tuple)):
        values = next(iter(values.values())) if isinstance(values, dict) else values[0]
    return len(values)


def join_rows(parts: Sequence[Any]) -> Any:
    """Arrays, or dictionaries or tuples of arrays of the same form, one after the other."""
    first = parts[0]
    try:
        if isinstance(first, dict):
            return {key: join_rows([part[key] for part in parts]) for key in first}
        if isinstance(first, tuple):
            return tuple(join_rows([part[i] for part in parts]) for i in range(len(first)))
        return first if len(parts) == 1 else np.concatenate(parts)
    except (ValueError, KeyError, IndexError, TypeError) as error:
        raise UserError(f"episodes of different shapes ({error})") from None


@contextmanager
def named(where: str) -> Iterator[None]:
    """Put the place in front of the message of a `UserError`."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


@contextmanager
def read_as(where: str, kind: str) -> Iterator[None]:
    """Put the format that a file was taken for behind the message of a `UserError` about it.

    Args:
        where: the file or folder, with which messages about it begin; others stay as they are.
        kind: the format, see `Recording.kind`; a message that names it already stays as it is.
    """
    try:
        yield
    except UserError as error:
        if not str(error).startswith(where) or kind in str(error):
            raise
        raise UserError(f"{error} (read as {kind})") from error


def parts_of(space: Any) -> dict[Any, spaces.Space[Any]]:
    """The parts of a composite space under the keys that index a batch, in flattening order."""
    return dict(space.spaces) if isinstance(space, spaces.Dict) else dict(enumerate(space.spaces))

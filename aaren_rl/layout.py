"""A Gymnasium space as columns of numbers, part by part: a Dict's by name, a Tuple's in order.

One row of numbers holds one observation or action: a Box flattened, and one column for each choice
of a Discrete, MultiDiscrete or MultiBinary, counted from 0. Data, agents, policies and exported
files share this form. NumPy only, and spaces are recognised by the names of their classes, so that
an exported agent acts without Gymnasium.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aaren_rl.errors import UserError

Path = tuple["str | int", ...]
LARGEST_RETURN = 1e18  # the square of a return, as in losses and norms, must fit into float32


def as_array(values: Any) -> NDArray[Any]:
    """As NumPy's; tensors may need gradients, be on a GPU, or be bfloat16, which becomes float32.

    `ValueError` for rows of different lengths.
    """
    if hasattr(values, "detach"):
        values = values.detach().cpu()
        values = values.float() if str(values.dtype) == "torch.bfloat16" else values
    return np.asarray(values)


@dataclass(frozen=True)
class Leaf:
    """A part of a space that has no parts itself.

    Attributes:
        path: keys of the dictionaries (text) and indices of the tuples (numbers) that lead to it.
        shape: of the part, as the environment gives it.
        dtype: NumPy's name of its dtype.
        levels: number of choices of each number, `[size]`; empty for a Box.
        starts: the first choice of each number, `[size]`.
        space: the part itself, where Gymnasium is installed.
    """

    path: Path
    shape: tuple[int, ...]
    dtype: str
    levels: tuple[int, ...] = ()
    starts: tuple[int, ...] = ()
    space: Any = field(default=None, compare=False, repr=False)

    @property
    def size(self) -> int:
        """Number of columns."""
        return math.prod(self.shape)

    @property
    def name(self) -> str:
        """The path as text; empty for a space without parts."""
        return "/".join(map(str, self.path))

    @property
    def tabled(self) -> bool:
        """Whether its numbers are choices among more than two, which have no order."""
        return bool(self.levels) and max(self.levels) > 2

    @property
    def is_image(self) -> bool:
        """Whether it may be a picture: a uint8 Box of two or three dimensions."""
        return not self.levels and self.dtype == "uint8" and len(self.shape) in (2, 3)

    @property
    def form(self) -> tuple[Any, ...]:
        """Equal for two parts whose numbers mean the same; does not include a Box's bounds."""
        return self.path, self.shape, self.levels, self.starts

    def rows(self, values: Any) -> NDArray[Any]:
        """Values `[rows, *shape]` as `[rows, size]`; choices counted from 0.

        Raises:
            UserError: another shape, values that are not numbers, or choices outside the space.
        """
        try:
            array = as_array(values)
        except ValueError:
            raise self._error("rows of different lengths; equal lengths expected") from None
        if array.dtype.kind not in "biuf":
            raise self._error(f"values of type {array.dtype}: numbers expected")
        if array.ndim == 0 or array.shape[1:] != self.shape:
            raise self._error(
                f"shape {list(array.shape)}: rows of shape {list(self.shape)} expected"
            )
        flat = array.reshape(len(array), self.size)
        return self._indices(flat) if self.levels else flat

    def _indices(self, flat: NDArray[Any]) -> NDArray[np.int64]:
        starts, levels = np.array(self.starts), np.array(self.levels)
        fits = (flat == np.floor(flat)) & (flat >= starts) & (flat < starts + levels)
        if not fits.all():
            column = int(np.argwhere(~fits)[0][1])
            first, last = starts[column], starts[column] + levels[column] - 1
            raise self._error(f"a value out of range: integers from {first} to {last} expected")
        return flat.astype(np.int64) - starts

    def values(self, rows: NDArray[Any]) -> NDArray[Any]:
        """The inverse of `rows`: `[rows, size]` to `[rows, *shape]` in the part's own dtype."""
        if self.levels:
            rows = np.rint(rows).astype(np.int64) + np.array(self.starts)
        return rows.astype(self.dtype).reshape(len(rows), *self.shape)

    def _error(self, text: str) -> UserError:
        return UserError(f"{self.name}: {text}" if self.path else text)


class Layout:
    """The leaves of a space, in order, and their columns.

    Attributes:
        leaves: the leaves.
        columns: number of columns.
    """

    def __init__(self, leaves: Iterable[Leaf]) -> None:
        self.leaves = tuple(leaves)
        self.columns = sum(leaf.size for leaf in self.leaves)

    @classmethod
    def of(cls, space: Any) -> Layout:
        """The layout of a Gymnasium space.

        Raises:
            UserError: a part is of another kind (text, sequences, graphs), or has no parts.
        """
        return cls(_leaves(space, ()))

    @property
    def is_box(self) -> bool:
        """Whether the space is a Box, so that its rows are its values flattened."""
        return not (self.leaves[0].path or self.leaves[0].levels)

    @cached_property
    def slices(self) -> tuple[slice, ...]:
        """The columns of each leaf."""
        ends = np.cumsum([0, *self.sizes]).tolist()
        return tuple(slice(*pair) for pair in pairwise(ends))

    @property
    def shape(self) -> tuple[int, ...]:
        """Of one row, as a flat Box has it."""
        return (self.columns,)

    @property
    def form(self) -> tuple[Any, ...]:
        """See `Leaf.form`."""
        return tuple(leaf.form for leaf in self.leaves)

    def mask(self, which: Callable[[Leaf], bool]) -> NDArray[np.bool_]:
        """True at the columns of these leaves, bool `[columns]`."""
        return np.repeat([bool(which(leaf)) for leaf in self.leaves], self.sizes)

    @property
    def sizes(self) -> list[int]:
        """Columns of each leaf."""
        return [leaf.size for leaf in self.leaves]

    def parts(self, batch: Any) -> list[NDArray[Any]]:
        """A batch of elements as an array `[rows, size]` for each leaf, in the batch's own dtypes.

        A batch is an array `[rows, ...]`, or a dictionary or tuple of such, as vector environments
        give it.

        Raises:
            UserError: parts that are missing, or that `Leaf.rows` refuses.
        """
        parts = [leaf.rows(_pick(batch, leaf.path)) for leaf in self.leaves]
        rows = sorted({len(part) for part in parts})
        if len(rows) > 1:
            raise UserError(f"parts of {rows[0]} and of {rows[-1]} rows; equal numbers expected")
        return parts

    def flatten(self, batch: Any, dtype: Any = np.float32) -> NDArray[Any]:
        """A batch of elements as rows, `[rows, columns]` of `dtype`; see `parts`."""
        return np.concatenate([p.astype(dtype, copy=False) for p in self.parts(batch)], axis=1)

    def unflatten(self, rows: NDArray[Any]) -> Any:
        """The inverse of `flatten`, in the parts' own dtypes."""
        values = [
            leaf.values(rows[:, columns])
            for leaf, columns in zip(self.leaves, self.slices, strict=True)
        ]
        return _assemble(list(zip((leaf.path for leaf in self.leaves), values, strict=True)))

    def to_json(self) -> list[dict[str, Any]]:
        """As plain JSON values."""
        names = ("path", "shape", "dtype", "levels", "starts")
        return [
            {n: list(v) if isinstance(v := getattr(leaf, n), tuple) else v for n in names}
            for leaf in self.leaves
        ]

    @classmethod
    def from_json(cls, content: Iterable[dict[str, Any]]) -> Layout:
        """The inverse of `to_json`; the leaves have no `space`.

        Raises:
            LookupError, TypeError, ValueError: anything else.
        """
        names = ("path", "shape", "levels", "starts")
        layout = cls(
            Leaf(dtype=leaf["dtype"], **{name: tuple(leaf[name]) for name in names})
            for leaf in content
        )
        for leaf in layout.leaves:
            _check_leaf(leaf)
        _check_paths([leaf.path for leaf in layout.leaves])
        return layout


def _check_leaf(leaf: Leaf) -> None:
    """Raise TypeError or ValueError for sizes or choices that are none."""
    if not all(type(n) is int and n >= 0 for n in leaf.shape):
        raise ValueError(f"part {leaf.name!r:.80}: {leaf.shape!r:.80} is not a shape")
    if np.dtype(leaf.dtype).kind not in "biuf":
        raise ValueError(f"part {leaf.name!r:.80}: {leaf.dtype!r:.80} is not a dtype of numbers")
    choices = (*leaf.levels, *leaf.starts)
    fits = len(leaf.levels) == len(leaf.starts) and len(leaf.levels) in (0, leaf.size)
    if not fits or not all(type(n) is int and abs(n) < 2**62 for n in choices):
        raise ValueError(f"part {leaf.name!r:.80}: levels and starts do not fit its shape")


def _check_paths(paths: Sequence[Path]) -> None:
    """Raise ValueError unless the paths are those of one space of named or numbered parts."""
    if not paths:
        raise ValueError("no parts")
    if () in paths:
        if len(paths) > 1:
            raise ValueError("a part inside one that has none")
        return
    inside: dict[Any, list[Path]] = {}
    for key, *rest in paths:
        inside.setdefault(key, []).append(tuple(rest))
    keys = list(inside)
    if keys != list(range(len(keys))) and not all(isinstance(key, str) for key in keys):
        raise ValueError(f"{keys!r:.80}: names, or numbers from 0 on, expected")
    for each in inside.values():
        _check_paths(each)


def _leaves(space: Any, path: Path) -> list[Leaf]:
    kinds = {cls.__name__ for cls in type(space).__mro__}
    if kinds & {"Dict", "Tuple"}:
        parts: Any = space.spaces
        parts = parts if "Dict" in kinds else dict(enumerate(parts))
        if not parts or ("Dict" in kinds and not all(isinstance(key, str) for key in parts)):
            raise UserError(f"space {space}: parts expected, in a Dict under names that are text")
        # Sorted, since a space that was saved and read again has its names in another order.
        return [leaf for key in sorted(parts) for leaf in _leaves(parts[key], (*path, key))]
    levels: Any = ()
    starts: Any = 0
    if "Discrete" in kinds:
        levels, starts = space.n, space.start
    elif "MultiDiscrete" in kinds:
        levels, starts = space.nvec, getattr(space, "start", 0)
    elif "MultiBinary" in kinds:
        levels = np.full(space.shape, 2)
    elif "Box" not in kinds:
        raise UserError(
            f"space {space}: only Box, Discrete, MultiDiscrete, MultiBinary, and Dict or Tuple of "
            "these are supported"
        )
    each = np.ravel(levels).tolist()
    first = np.broadcast_to(starts, np.shape(levels)).ravel().tolist() if each else []
    shape = tuple(space.shape or ())
    return [Leaf(path, shape, str(space.dtype), tuple(each), tuple(first), space)]


def _pick(batch: Any, path: Path) -> Any:
    """The part of a batch at a path."""
    for depth, key in enumerate(path):
        wanted = dict if isinstance(key, str) else tuple
        try:
            if not isinstance(batch, wanted):
                raise TypeError
            batch = batch[key]  # type: ignore[index]
        except (KeyError, IndexError, TypeError):
            where = "/".join(map(str, path[: depth + 1]))
            raise UserError(f"parts that do not fit: no part {where!r}") from None
    return batch


def _assemble(found: Sequence[tuple[Path, Any]]) -> Any:
    """Dictionaries and tuples from paths and values."""
    if not found[0][0]:
        return found[0][1]
    inside: dict[Any, list[tuple[Path, Any]]] = {}
    for path, value in found:
        inside.setdefault(path[0], []).append((path[1:], value))
    parts = {key: _assemble(values) for key, values in inside.items()}
    return tuple(parts.values()) if isinstance(found[0][0][0], int) else parts

"""Several datasets of one space as one, each with a weight and a unit of returns of its own."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, fields, replace
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.rows import Rows, map_runs, runs_of, side_by_side
from aaren_rl.data.statistics import divisors, moments
from aaren_rl.data.trajectory import STEP_FIELDS, TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

BETWEEN = " + "
"""Separator of the names of several datasets."""


@dataclass(frozen=True, eq=False)
class MixedDataset(TrajectoryDataset):
    """Several datasets one after the other; `mix` makes it.

    Attributes:
        parts: the datasets; their arrays are views into this one's.
        weights: how often to draw from each, relative to the others.
        bounds: int64 `[parts + 1]`, the first episode of each, and the number of episodes.
    """

    parts: tuple[TrajectoryDataset, ...] = ()
    weights: tuple[float, ...] = ()
    bounds: NDArray[np.int64] = field(default_factory=lambda: np.zeros(1, np.int64))

    @property
    def shares(self) -> NDArray[np.float64]:
        """The weights, which then sum to 1."""
        return np.array(self.weights) / np.sum(self.weights)

    def tasks_of(self, rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """The dataset that each step belongs to, by its number."""
        return np.searchsorted(self.offsets[self.bounds], rows, side="right") - 1

    def each(self, change: Callable[[TrajectoryDataset], TrajectoryDataset]) -> MixedDataset:
        """The mixture of the changed parts."""
        return mix([(change(p), w) for p, w in zip(self.parts, self.weights, strict=True)])

    def top_percent(self, percent: float) -> TrajectoryDataset:
        """The best `percent` of each dataset's episodes."""
        return self if percent == 100 else self.each(lambda part: part.top_percent(percent))

    def in_units(self, units: Sequence[tuple[float, float]]) -> MixedDataset:
        """The same with each dataset's returns-to-go minus a shift and divided by a scale."""
        returns = self.returns_to_go.copy()
        steps = pairwise(self.offsets[self.bounds].tolist())
        for (first, end), (shift, scale) in zip(steps, units, strict=True):
            returns[first:end] = (returns[first:end] - shift) / scale
        return replace(self, returns_to_go=returns)

    def _columns(self, array: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of the mixture: each dataset counts with its weight, not its size."""
        steps = self.offsets[self.bounds].tolist()
        found = [moments(array[a:b]) for a, b in pairwise(steps)]
        means, deviations = (np.stack(each) for each in zip(*found, strict=True))
        mean = np.tensordot(self.shares, means, 1)
        variance = np.tensordot(self.shares, deviations**2 + (means - mean) ** 2, 1)
        return divisors(mean, np.sqrt(variance))


def mix(parts: Sequence[tuple[TrajectoryDataset, float]]) -> MixedDataset:
    """One dataset of several, which are drawn from by weight, whatever their sizes.

    A weight is how often a window, or with the samplings `episodes` and `streams` an episode, comes
    from a dataset, relative to the others.

    Args:
        parts: datasets in memory, each with its weight. Their names are the tasks' names.

    Raises:
        UserError: no datasets, a weight that is not positive and finite, a name that is there
            twice, spaces that differ, or data on the disk.
    """
    if not parts:
        raise UserError("a mixture of no datasets; at least one expected")
    one = parts[0][0]
    for data, weight in parts:
        if not (isinstance(weight, Real) and weight > 0 and math.isfinite(weight)):
            raise UserError(f"dataset {data.name}: weight {weight}; a positive number expected")
        if isinstance(data, MixedDataset) or isinstance(data.rewards, Rows):
            raise UserError(f"dataset {data.name}: only datasets in memory can be mixed")
        if sum(other.name == data.name for other, _ in parts) > 1:
            raise UserError(
                f"dataset {data.name}: given twice; give it a larger weight, or another name"
            )
        _check_spaces(one, data)
    datasets = [data for data, _ in parts]
    whole = concatenated(datasets)
    bounds = np.cumsum([0, *(data.num_episodes for data in datasets)])
    steps = whole.offsets[bounds].tolist()
    views = [
        replace(data, **{name: _cut(getattr(whole, name), *pair) for name in STEP_FIELDS})
        for data, pair in zip(datasets, pairwise(steps), strict=True)
    ]
    content = {each.name: getattr(whole, each.name) for each in fields(TrajectoryDataset)}
    content["name"] = BETWEEN.join(data.name for data in datasets)
    content |= {"env_spec": None, "reference_scores": None}
    weights = tuple(float(weight) for _, weight in parts)
    return MixedDataset(**content, parts=tuple(views), weights=weights, bounds=bounds)


def concatenated(parts: Sequence[TrajectoryDataset]) -> TrajectoryDataset:
    """The episodes of several datasets of the same columns, in memory; all else is the first's."""
    steps = {name: _joined([getattr(part, name) for part in parts]) for name in STEP_FIELDS}
    lengths = np.concatenate([part.lengths for part in parts])
    return replace(
        parts[0],
        **steps,
        offsets=np.concatenate([[0], np.cumsum(lengths)]),
        terminated=np.concatenate([part.terminated for part in parts]),
        truncated=np.concatenate([part.truncated for part in parts]),
    )


def _cut(array: Any, first: int, end: int) -> Any:
    """Rows from `first` to `end`, not copied."""
    return map_runs(lambda run: run[first:end], array)


def _joined(arrays: Sequence[Any]) -> Any:
    """Arrays `[steps, ...]` one after the other; columns of several dtypes stay so."""
    runs = [runs_of(array) for array in arrays]
    if len({len(run) for run in runs}) > 1:
        return np.concatenate([np.asarray(array[:]) for array in arrays])
    return side_by_side(
        [np.concatenate([np.asarray(run) for run in each]) for each in zip(*runs, strict=True)]
    )


def _check_spaces(first: TrajectoryDataset, other: TrajectoryDataset) -> None:
    """Raise `UserError` unless one agent can learn from both."""
    for kind in ("observation_space", "action_space"):
        one, two = getattr(first, kind), getattr(other, kind)
        same = Layout.of(one).form == Layout.of(two).form
        if same and kind == "action_space" and isinstance(one, spaces.Box):
            same = np.array_equal(one.low, two.low) and np.array_equal(one.high, two.high)
        if not same:
            hint = (
                "; spaces that were guessed from data are taken from an environment (--env) instead"
            )
            raise UserError(f"{kind}: {first.name} has {one}, {other.name} has {two}{hint}")
    offsets: list[Any] = [data.observation_offset for data in (first, other)]
    if not (all(each is None for each in offsets) or np.array_equal(*offsets)):
        raise UserError(
            f"{first.name} and {other.name}: observations with other offsets cannot be mixed"
        )


def episode_order(rng: np.random.Generator, data: TrajectoryDataset) -> NDArray[np.int64]:
    """The episodes of an epoch in random order, each once.

    Of a mixture as many are drawn, from each dataset by its weight, without repeating an episode
    before all others of its dataset.
    """
    if not isinstance(data, MixedDataset):
        return rng.permutation(data.num_episodes)
    which = rng.choice(len(data.parts), size=data.num_episodes, p=data.shares)
    order = np.empty(data.num_episodes, dtype=np.int64)
    for i, part in enumerate(data.parts):
        places = np.flatnonzero(which == i)
        count = -(-len(places) // part.num_episodes)
        rounds = [rng.permutation(part.num_episodes) for _ in range(count)]
        if rounds:
            order[places] = data.bounds[i] + np.concatenate(rounds)[: len(places)]
    return order


def drawn_places(
    rng: np.random.Generator, data: TrajectoryDataset, places: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """`size` uniform places; in a mixture each in a dataset that is drawn by weight.

    `places`, int64 `[episodes + 1]`, holds the first place of each episode.
    """
    if not isinstance(data, MixedDataset):
        return rng.integers(places[-1], size=size)
    ends = places[data.bounds]
    which = rng.choice(len(data.parts), size=size, p=data.shares)
    return ends[which] + (rng.random(size) * (ends[which + 1] - ends[which])).astype(np.int64)


def weighted_names(text: str) -> list[tuple[str, float]]:
    """`a:2 + b` as names and weights; a weight is a number behind the last colon, else 1.

    An existing path is always a whole name. One name alone has no weight.

    Raises:
        UserError: a weight that is not positive and finite.
    """
    names = text.split(BETWEEN)
    if len(names) == 1 or Path(text).exists():
        return [(text, 1.0)]
    found = []
    for each in names:
        before, colon, behind = each.rpartition(":")
        try:
            weight = float(behind) if colon and before and not Path(each).exists() else None
        except ValueError:
            weight = None
        if weight is not None and not (weight > 0 and math.isfinite(weight)):
            raise UserError(f"--dataset {each}: weight {behind}; a positive number expected")
        found.append((each, 1.0) if weight is None else (before, weight))
    return found

"""Intervals over seeds, by rliable (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

RESAMPLES = 5000
FEWEST_SEEDS = 5
"""The fewest runs of a task that are resampled; with fewer, their range takes the interval's place.

A bootstrap of n numbers draws from these n alone. Its interval is too narrow by about
sqrt((n - 1) / n), and for n below 5 its ends are little more than the smallest and largest number.
"""

Bounds = Literal["95% interval", "range"]
"""What `Estimate.low` and `Estimate.high` are, as reports and tables name it."""


@dataclass(frozen=True)
class Estimate:
    """A number computed from runs, with its uncertainty.

    Attributes:
        value: the number.
        low: the lower end; `None` where there are too few runs for any.
        high: the upper end, likewise.
        bounds: whether the ends are a 95% bootstrap interval of the number, or the range (smallest
            and largest) of the runs that it summarises; `None` where there are no ends.
    """

    value: float
    low: float | None = None
    high: float | None = None
    bounds: Bounds | None = None


def mean_interval(scores: np.ndarray) -> Estimate:
    """The mean of scores `[runs]` or `[runs, tasks]`, the same at every call.

    Its ends are a 95% interval by the bootstrap, stratified by task; with fewer than `FEWEST_SEEDS`
    runs, the range of the scores.
    """
    from rliable.metrics import aggregate_mean

    table = as_table(scores)
    [mean] = estimates([table], lambda x: np.array([aggregate_mean(x)]), [table], RESAMPLES)
    return mean


def paired_difference(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """The mean of `ours - theirs` over paired runs, `[runs]` or `[runs, tasks]`."""
    return mean_interval(as_table(ours) - as_table(theirs))


def as_table(scores: np.ndarray) -> np.ndarray:
    """Scores `[runs]` or `[runs, tasks]` as float64 `[runs, tasks]`."""
    table = np.asarray(scores, dtype=np.float64)
    return table[:, None] if table.ndim == 1 else table


def estimates(
    tables: Sequence[np.ndarray],
    function: Callable[..., np.ndarray],
    ranged: Sequence[np.ndarray | None],
    resamples: int,
) -> list[Estimate]:
    """Numbers of tables of scores with their intervals or ranges; arguments as `bootstrap`'s.

    `ranged` holds for each number the values whose range takes the interval's place when there are
    fewer than `FEWEST_SEEDS` runs; `None` for no ends in that case.
    """
    if len(tables[0]) >= FEWEST_SEEDS:
        found = bootstrap(tables, function, resamples)
        return [Estimate(value, low, high, "95% interval") for value, low, high in found]
    return [
        Estimate(float(value))
        if values is None
        else Estimate(float(value), float(values.min()), float(values.max()), "range")
        for value, values in zip(function(*tables), ranged, strict=True)
    ]


def bootstrap(
    tables: Sequence[np.ndarray], function: Callable[..., np.ndarray], resamples: int
) -> list[tuple[float, float, float]]:
    """Numbers of one or several tables of scores with their 95% stratified-bootstrap intervals.

    Each resample draws, for each task by itself, as many runs as there are, with replacement, and
    takes the same runs in all tables: agents that were run with the same seeds stay paired.

    Args:
        tables: float64 `[runs, tasks]` each, all of one shape, at least two runs.
        function: takes the tables, gives `[numbers]`.
        resamples: how many.

    Returns:
        (value, low, high) for each number, the same at every call.
    """
    from rliable.library import get_interval_estimates

    # rliable would draw from each of two tables independently. It resamples the runs' numbers here,
    # which select the scores of all tables.
    runs, tasks = tables[0].shape
    numbers = np.repeat(np.arange(runs)[:, None], tasks, axis=1)
    columns = np.arange(tasks)

    def of_runs(chosen: np.ndarray) -> np.ndarray:
        return function(*(table[chosen, columns] for table in tables))

    given: Any = {"all": numbers}
    with warnings.catch_warnings(), _fixed_draws():
        warnings.simplefilter("ignore", FutureWarning)  # arch's, of what rliable asks of it
        points, intervals = get_interval_estimates(given, of_runs, reps=resamples)
    rows = zip(points["all"], *intervals["all"], strict=True)
    return [(float(value), float(low), float(high)) for value, low, high in rows]


@contextlib.contextmanager
def _fixed_draws() -> Iterator[None]:
    """NumPy's global generator seeded, then restored: rliable 1.2 ignores `random_state`."""
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002

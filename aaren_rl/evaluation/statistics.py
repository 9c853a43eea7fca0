"""Intervals over seeds, by rliable (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

RESAMPLES = 5000


@dataclass(frozen=True)
class Interval:
    """A mean with its 95% stratified-bootstrap interval.

    With a single run there is nothing to resample: `low` and `high` are the mean.
    """

    mean: float
    low: float
    high: float


def mean_interval(scores: np.ndarray) -> Interval:
    """The mean of scores `[runs]` or `[runs, tasks]` and its interval, the same at every call."""
    # Imported here: it takes seconds, and most commands do not need it.
    from rliable.metrics import aggregate_mean

    table = np.asarray(scores, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if len(table) == 1:
        mean = float(table.mean())
        return Interval(mean, mean, mean)
    [(mean, low, high)] = bootstrap(
        [table], lambda values: np.array([aggregate_mean(values)]), RESAMPLES
    )
    return Interval(mean, low, high)


def bootstrap(
    tables: Sequence[np.ndarray], function: Callable[..., np.ndarray], resamples: int
) -> list[tuple[float, float, float]]:
    """Numbers of one or several tables of scores with their 95% stratified-bootstrap intervals.

    Args:
        tables: `[runs, tasks]` each, at least two runs.
        function: takes the tables, gives `[numbers]`.
        resamples: how often runs are drawn anew, each table's and task's by themselves.

    Returns:
        (value, low, high) for each number, the same at every call.
    """
    from rliable.library import get_interval_estimates

    given: Any = tables[0] if len(tables) == 1 else tuple(tables)
    with warnings.catch_warnings(), _fixed_draws():
        warnings.simplefilter("ignore", FutureWarning)  # arch's, of what rliable asks of it
        points, intervals = get_interval_estimates({"all": given}, function, reps=resamples)
    rows = zip(points["all"], *intervals["all"], strict=True)
    return [(float(value), float(low), float(high)) for value, low, high in rows]


@contextlib.contextmanager
def _fixed_draws() -> Iterator[None]:
    """Numpy's global generator, seeded, and afterwards as it was.

    rliable 1.2 draws from it, whatever `random_state` it is given.
    """
    before = np.random.get_state()  # noqa: NPY002
    np.random.seed(0)  # noqa: NPY002
    try:
        yield
    finally:
        np.random.set_state(before)  # noqa: NPY002

"""One number over many tasks and seeds, with its interval, by rliable.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv
2108.13264. Scores are normalised, 0 to 100, `[runs, tasks]`. Intervals are 95% and from the
stratified bootstrap: the runs of each task are drawn anew, the tasks stay. All are the same at
every call.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from aaren_rl.evaluation.statistics import bootstrap

RESAMPLES = 2000
GOAL = 100.0
"""The score below which the optimality gap counts."""


@dataclass(frozen=True)
class Estimate:
    """A number with its 95% interval.

    With one run of each task there is nothing to draw anew: `low` and `high` are `None`.
    """

    value: float
    low: float | None
    high: float | None


@dataclass(frozen=True)
class Profile:
    """The share of runs that score above each threshold, and its interval: `[thresholds]` each."""

    thresholds: list[float]
    share: list[float]
    low: list[float] | None
    high: list[float] | None


def aggregates(scores: np.ndarray) -> dict[str, Estimate]:
    """IQM (the mean of the middle half of all runs), median, mean and optimality gap.

    Args:
        scores: `[runs, tasks]`. The median is over tasks, of each task's mean.
    """
    from rliable import metrics

    functions: dict[str, Callable[[np.ndarray], float]] = {
        "iqm": metrics.aggregate_iqm,
        "median": metrics.aggregate_median,
        "mean": metrics.aggregate_mean,
        "optimality_gap": lambda values: metrics.aggregate_optimality_gap(values, gamma=GOAL),
    }
    values = _estimates([scores], lambda x: np.array([f(x) for f in functions.values()]))
    return dict(zip(functions, values, strict=True))


def iqm(scores: np.ndarray) -> float:
    """The mean of the middle half of all scores, `[runs, tasks]`."""
    from rliable.metrics import aggregate_iqm

    return float(aggregate_iqm(np.asarray(scores, dtype=np.float64)))


def iqm_difference(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """IQM of `ours` less that of `theirs`, each `[runs, tasks]` of the same tasks."""
    from rliable.metrics import aggregate_iqm

    [difference] = _estimates(
        [ours, theirs], lambda x, y: np.array([aggregate_iqm(x) - aggregate_iqm(y)])
    )
    return difference


def improvement_probability(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """The chance that a run of `ours` beats one of `theirs` on a task drawn at random.

    Args:
        ours: `[runs, tasks]`.
        theirs: `[runs, tasks]`, the same tasks.
    """
    from rliable.metrics import probability_of_improvement

    [chance] = _estimates([ours, theirs], lambda x, y: np.array([probability_of_improvement(x, y)]))
    return chance


def _estimates(tables: Sequence[np.ndarray], function: Callable[..., np.ndarray]) -> list[Estimate]:
    """Each number that `function` gives for the tables, with its interval."""
    arrays = [np.asarray(table, dtype=np.float64) for table in tables]
    if any(len(table) == 1 for table in arrays):
        return [Estimate(float(value), None, None) for value in function(*arrays)]
    return [Estimate(*numbers) for numbers in bootstrap(arrays, function, RESAMPLES)]


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> Profile:
    """The share of runs, over all tasks, that score above each threshold.

    Args:
        scores: `[runs, tasks]`.
        thresholds: `[any number]`.
    """
    table = np.asarray(scores, dtype=np.float64)

    def shares(values: np.ndarray) -> np.ndarray:
        return (values[:, :, None] > thresholds).mean((0, 1))

    points = _estimates([table], shares)
    low = [point.low for point in points if point.low is not None]
    high = [point.high for point in points if point.high is not None]
    return Profile(
        thresholds=thresholds.tolist(),
        share=[point.value for point in points],
        low=low or None,
        high=high or None,
    )

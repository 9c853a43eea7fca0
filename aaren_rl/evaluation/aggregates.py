"""One number over many tasks and seeds, with its interval, by rliable.

Agarwal et al. 2021, "Deep Reinforcement Learning at the Edge of the Statistical Precipice", arXiv
2108.13264. Scores are normalised, 0 to 100, `[runs, tasks]`. Intervals are 95%, with the stratified
bootstrap's standard error: the runs of each task are drawn anew, the tasks stay. With fewer than
`FEWEST_SEEDS` runs of each task there is no interval, but the range of the runs. Comparisons of two
agents are paired: row i of both tables has the same seed, and both are drawn together. All numbers
are the same at every call.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from aaren_rl.evaluation.statistics import Estimate, as_table, estimates

RESAMPLES = 2000
GOAL = 100.0
"""The score below which the optimality gap counts."""


@dataclass(frozen=True)
class Profile:
    """The share of runs that score above each threshold, and its interval: `[thresholds]` each.

    `low` and `high` are `None` with fewer than `FEWEST_SEEDS` runs.
    """

    thresholds: list[float]
    share: list[float]
    low: list[float] | None
    high: list[float] | None


def aggregates(scores: np.ndarray) -> dict[str, Estimate]:
    """IQM (mean of the middle half of all runs), median over tasks, mean and optimality gap."""
    from rliable import metrics

    functions: dict[str, Callable[[np.ndarray], float]] = {
        "iqm": metrics.aggregate_iqm,
        "median": metrics.aggregate_median,
        "mean": metrics.aggregate_mean,
        "optimality_gap": lambda values: metrics.aggregate_optimality_gap(values, gamma=GOAL),
    }
    table = as_table(scores)
    gaps = GOAL - np.minimum(table, GOAL)
    ranged = [gaps if name == "optimality_gap" else table for name in functions]
    values = estimates(
        [table], lambda x: np.array([f(x) for f in functions.values()]), ranged, RESAMPLES
    )
    return dict(zip(functions, values, strict=True))


def iqm(scores: np.ndarray) -> float:
    """The mean of the middle half of all scores, `[runs, tasks]`."""
    from rliable.metrics import aggregate_iqm

    return float(aggregate_iqm(np.asarray(scores, dtype=np.float64)))


def iqm_difference(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """IQM of `ours` less that of `theirs`, with paired runs."""
    from rliable.metrics import aggregate_iqm

    tables = [as_table(ours), as_table(theirs)]
    [difference] = estimates(
        tables,
        lambda x, y: np.array([aggregate_iqm(x) - aggregate_iqm(y)]),
        [tables[0] - tables[1]],
        RESAMPLES,
    )
    return difference


def improvement_probability(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    """The chance that a run of `ours` beats one of `theirs` on a task drawn at random."""
    from rliable.metrics import probability_of_improvement

    tables = [as_table(ours), as_table(theirs)]
    [chance] = estimates(
        tables, lambda x, y: np.array([probability_of_improvement(x, y)]), [None], RESAMPLES
    )
    return _as_share(chance)


def performance_profile(scores: np.ndarray, thresholds: np.ndarray) -> Profile:
    """The share of runs, over all tasks, that score above each threshold."""
    table = as_table(scores)

    def shares(values: np.ndarray) -> np.ndarray:
        return (values[:, :, None] > thresholds).mean((0, 1))

    points = [_as_share(x) for x in estimates([table], shares, [None] * len(thresholds), RESAMPLES)]
    low = [point.low for point in points if point.low is not None]
    high = [point.high for point in points if point.high is not None]
    return Profile(
        thresholds=thresholds.tolist(),
        share=[point.value for point in points],
        low=low or None,
        high=high or None,
    )


def _as_share(value: Estimate) -> Estimate:
    """An estimate of a share, its ends in [0, 1]."""
    if value.low is None or value.high is None:
        return value
    return dataclasses.replace(value, low=max(0.0, value.low), high=min(1.0, value.high))

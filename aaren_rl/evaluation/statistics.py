"""Intervals over seeds, by rliable (Agarwal et al. 2021, arXiv 2108.13264)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

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
    from rliable.library import get_interval_estimates
    from rliable.metrics import aggregate_mean

    table = np.asarray(scores, dtype=np.float64)
    table = table[:, None] if table.ndim == 1 else table
    if len(table) == 1:
        mean = float(table.mean())
        return Interval(mean, mean, mean)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # arch's, of what rliable asks of it
        points, intervals = get_interval_estimates(
            {"all": table},
            lambda values: np.array([aggregate_mean(values)]),
            reps=RESAMPLES,
            random_state=np.random.RandomState(0),
        )
    low, high = intervals["all"][:, 0]
    return Interval(float(points["all"][0]), float(low), float(high))

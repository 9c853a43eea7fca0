"""Numbers over tasks and seeds: values by hand, intervals by what intervals must do."""

from __future__ import annotations

import numpy as np
import pytest

from aaren_rl.evaluation import mean_interval
from aaren_rl.evaluation.aggregates import (
    aggregates,
    improvement_probability,
    iqm_difference,
    performance_profile,
)

SCORES = np.array([[10.0, 50.0], [20.0, 60.0], [30.0, 70.0], [120.0, 80.0]])


def test_values_are_what_their_names_say() -> None:
    found = aggregates(SCORES)
    assert found["mean"].value == pytest.approx(55.0)
    assert found["median"].value == pytest.approx((45.0 + 65.0) / 2)
    assert found["iqm"].value == pytest.approx((30 + 50 + 60 + 70) / 4)  # the middle of eight
    gaps = 100 - np.minimum(SCORES, 100)
    assert found["optimality_gap"].value == pytest.approx(gaps.mean())
    for estimate in found.values():
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high


def test_the_same_at_every_call_and_nobodys_draws_are_changed() -> None:
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    found = aggregates(SCORES)
    assert np.array_equal(np.random.random(3), wanted)  # noqa: NPY002
    assert aggregates(SCORES) == found
    assert mean_interval(SCORES) == mean_interval(SCORES)


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """A bootstrapped mean varies as the mean of draws does: sd / sqrt(runs x tasks)."""
    generator = np.random.default_rng(0)
    scores = generator.normal(50, 10, (40, 5))
    found = aggregates(scores)["mean"]
    assert found.low is not None
    assert found.high is not None
    wanted = 2 * 1.96 * np.sqrt((scores.std(0) ** 2 / 40).mean() / 5)
    assert found.high - found.low == pytest.approx(wanted, rel=0.1)


def test_a_difference_and_its_sign() -> None:
    ahead = iqm_difference(SCORES + 5, SCORES)
    assert ahead.value == pytest.approx(5)
    behind = iqm_difference(SCORES, SCORES + 5)
    assert behind.value == pytest.approx(-5)
    far = iqm_difference(SCORES + 1000, SCORES)
    assert far.low is not None
    assert far.low > 800


def test_the_chance_to_be_better() -> None:
    theirs = np.array([[1.0, 4.0], [2.0, 4.0]])
    ours = np.array([[3.0, 4.0], [0.0, 4.0]])
    # Task 1: one of two runs beats both; task 2: always equal, which counts half.
    assert improvement_probability(ours, theirs).value == pytest.approx((0.5 + 0.5) / 2)
    assert improvement_probability(theirs + 10, theirs).value == 1.0


def test_a_profile_counts_runs_above() -> None:
    profile = performance_profile(SCORES, np.array([0.0, 55.0, 100.0, 200.0]))
    assert profile.share == [1.0, 0.5, 0.125, 0.0]
    assert profile.low is not None
    assert profile.high is not None
    assert profile.low[1] < 0.5 < profile.high[1]


def test_one_run_has_no_interval() -> None:
    found = aggregates(SCORES[:1])
    assert found["mean"].value == 30.0
    assert found["mean"].low is found["mean"].high is None
    assert iqm_difference(SCORES[:1], SCORES).low is None
    assert performance_profile(SCORES[:1], np.array([0.0])).low is None

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
from aaren_rl.evaluation.statistics import paired_difference

SCORES = np.array([[10.0, 50.0], [20.0, 60.0], [30.0, 70.0], [120.0, 80.0]])
MORE = np.concatenate([SCORES, [[15.0, 65.0]]])  # enough runs for an interval


def test_values_are_what_their_names_say() -> None:
    found = aggregates(SCORES)
    assert found["mean"].value == pytest.approx(55.0)
    assert found["median"].value == pytest.approx((45.0 + 65.0) / 2)
    assert found["iqm"].value == pytest.approx((30 + 50 + 60 + 70) / 4)  # the middle of eight
    gaps = 100 - np.minimum(SCORES, 100)
    assert found["optimality_gap"].value == pytest.approx(gaps.mean())
    for estimate in aggregates(MORE).values():
        assert estimate.bounds == "95% interval"
        assert estimate.low is not None
        assert estimate.high is not None
        assert estimate.low < estimate.value < estimate.high


def test_the_same_at_every_call_and_nobodys_draws_are_changed() -> None:
    np.random.seed(5)  # noqa: NPY002
    wanted = np.random.random(3)  # noqa: NPY002
    np.random.seed(5)  # noqa: NPY002
    found = aggregates(MORE)
    assert np.array_equal(np.random.random(3), wanted)  # noqa: NPY002
    assert aggregates(MORE) == found
    assert mean_interval(MORE) == mean_interval(MORE)


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
    far = iqm_difference(MORE + 1000, MORE)
    assert (far.low, far.high) == (pytest.approx(1000), pytest.approx(1000))
    uneven = iqm_difference(MORE[::-1] + 1000, MORE)
    assert uneven.low is not None
    assert uneven.high is not None
    assert 800 < uneven.low < 1000 < uneven.high


def test_both_agents_are_drawn_together() -> None:
    """Seeds that differ by hundreds, agents by always the same: nothing of it is uncertain."""
    theirs = np.random.default_rng(0).uniform(0, 1000, (7, 3))
    for difference in (paired_difference, iqm_difference):
        found = difference(theirs + 2.5, theirs)
        assert found.bounds == "95% interval"
        assert found.value == pytest.approx(2.5)
        assert found.low == pytest.approx(2.5, abs=1e-9)
        assert found.high == pytest.approx(2.5, abs=1e-9)
        apart = difference(theirs[::-1] + 2.5, theirs)  # the same runs, paired wrongly
        assert apart.low is not None
        assert apart.high is not None
        assert apart.high - apart.low > 100


def test_the_paired_interval_is_that_of_the_differences() -> None:
    generator = np.random.default_rng(1)
    seed_effect = generator.normal(0, 50, (40, 4))
    theirs = seed_effect + generator.normal(0, 3, (40, 4))
    ours = seed_effect + generator.normal(1, 3, (40, 4))
    found = paired_difference(ours, theirs)
    assert found == mean_interval(ours - theirs)
    assert found.low is not None
    assert found.high is not None
    wanted = 2 * 1.96 * np.sqrt(((ours - theirs).std(0) ** 2 / 40).mean() / 4)
    assert found.high - found.low == pytest.approx(wanted, rel=0.1)


def test_a_chance_by_pairs_of_runs_is_drawn_together() -> None:
    """Ours beats only the rival's runs of lower seeds: drawn together, more than half is left."""
    theirs = np.arange(8.0)[:, None] * 10
    found = improvement_probability(theirs + 1, theirs)
    assert found.value == pytest.approx(36 / 64)
    assert found.low is not None
    assert found.low > 0.5  # each run beats its own pair in every draw


def test_the_chance_to_be_better() -> None:
    theirs = np.array([[1.0, 4.0], [2.0, 4.0]])
    ours = np.array([[3.0, 4.0], [0.0, 4.0]])
    # Task 1: one of two runs beats both; task 2: always equal, which counts half.
    assert improvement_probability(ours, theirs).value == pytest.approx((0.5 + 0.5) / 2)
    assert improvement_probability(theirs + 10, theirs).value == 1.0


def test_a_profile_counts_runs_above() -> None:
    thresholds = np.array([0.0, 55.0, 100.0, 200.0])
    assert performance_profile(SCORES, thresholds).share == [1.0, 0.5, 0.125, 0.0]
    profile = performance_profile(np.concatenate([SCORES, SCORES]), thresholds)
    assert profile.share == [1.0, 0.5, 0.125, 0.0]
    assert profile.low is not None
    assert profile.high is not None
    assert profile.low[1] < 0.5 < profile.high[1]


def test_fewer_than_five_runs_have_a_range() -> None:
    for runs in (1, 2, 3, 4):
        found = aggregates(SCORES[:runs])
        for name in ("mean", "iqm", "median"):
            each = found[name]
            assert each.bounds == "range"
            assert (each.low, each.high) == (SCORES[:runs].min(), SCORES[:runs].max())
            assert each.low <= each.value <= each.high
        gap = found["optimality_gap"]
        gaps = 100 - np.minimum(SCORES[:runs], 100)
        assert (gap.low, gap.high, gap.bounds) == (gaps.min(), gaps.max(), "range")
        profile = performance_profile(SCORES[:runs], np.array([0.0]))
        assert profile.low is profile.high is None
        chance = improvement_probability(SCORES[:runs], SCORES[:runs] + 1)
        assert chance.low is chance.high is chance.bounds is None
    assert aggregates(MORE)["mean"].bounds == "95% interval"


def test_a_difference_of_few_runs_has_the_range_of_its_pairs() -> None:
    theirs = SCORES[:3]
    ours = theirs + np.array([[1.0, -4.0], [2.0, 0.0], [7.0, 3.0]])
    for difference in (paired_difference, iqm_difference):
        found = difference(ours, theirs)
        assert (found.low, found.high, found.bounds) == (-4.0, 7.0, "range")
        assert -4.0 <= found.value <= 7.0

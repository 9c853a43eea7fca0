"""Numbers over tasks and seeds: values by hand, intervals by what intervals must do."""

from __future__ import annotations

import numpy as np
import pytest

from aaren_rl.evaluation import mean_interval
from aaren_rl.evaluation.aggregates import (
    aggregates,
    improvement_probability,
    iqm,
    iqm_difference,
    performance_profile,
)
from aaren_rl.evaluation.statistics import Estimate, bootstrap, paired_difference

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


def test_the_interval_of_a_mean_is_the_textbooks() -> None:
    """The mean's standard error over all tasks, as many times as Student's for one task's runs."""
    generator = np.random.default_rng(0)
    for runs, student in ((5, 2.776445), (40, 2.022691)):
        scores = generator.normal(50, 10, (runs, 5))
        found = aggregates(scores)["mean"]
        assert found.low is not None
        assert found.high is not None
        wanted = 2 * student * np.sqrt((scores.var(0, ddof=1) / runs).mean() / 5)
        assert found.high - found.low == pytest.approx(wanted, rel=0.1)
        assert found.high - found.value == pytest.approx(found.value - found.low)


def test_intervals_cover_what_they_say() -> None:
    """Of differences whose truth is 0, with tasks that vary unequally."""
    generator = np.random.default_rng(3)
    spread = np.array([2.0, 6.0, 3.0, 0.5])
    held, trials = 0, 80
    for _ in range(trials):
        theirs = np.array([75.0, 77.0, 106.0, 49.0]) + spread * generator.normal(size=(5, 4))
        tables = [theirs + spread * generator.normal(size=(5, 4)), theirs]
        [(_, low, high)] = bootstrap(tables, lambda x, y: np.array([iqm(x) - iqm(y)]), 100)
        held += low <= 0 <= high
    assert held / trials >= 0.9


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
    for difference in (_of_the_first_task, iqm_difference):
        found = difference(theirs + 2.5, theirs)
        assert found.bounds == "95% interval"
        assert found.value == pytest.approx(2.5)
        assert found.low == pytest.approx(2.5, abs=1e-9)
        assert found.high == pytest.approx(2.5, abs=1e-9)
        apart = difference(theirs[::-1] + 2.5, theirs)  # the same runs, paired wrongly
        assert apart.low is not None
        assert apart.high is not None
        assert apart.high - apart.low > 100


def _of_the_first_task(ours: np.ndarray, theirs: np.ndarray) -> Estimate:
    return paired_difference(ours[:, 0], theirs[:, 0])


def test_the_paired_interval_is_that_of_the_differences() -> None:
    generator = np.random.default_rng(1)
    seed_effect = generator.normal(0, 50, 40)
    theirs = seed_effect + generator.normal(0, 3, 40)
    ours = seed_effect + generator.normal(1, 3, 40)
    found = paired_difference(ours, theirs)
    assert found == mean_interval(ours - theirs)
    assert found.low is not None
    assert found.high is not None
    wanted = 2 * 2.022691 * (ours - theirs).std(ddof=1) / np.sqrt(40)
    assert found.high - found.low == pytest.approx(wanted)


def test_a_chance_by_pairs_of_runs_is_drawn_together() -> None:
    """Ours beats only the rival's runs of lower seeds, and its own pair in every draw."""
    theirs = np.arange(8.0)[:, None] * 10
    widths = []
    for ours in (theirs + 1, theirs[::-1] + 1):
        found = improvement_probability(ours, theirs)
        assert found.value == pytest.approx(36 / 64)
        assert found.low is not None
        assert found.high is not None
        widths.append(found.high - found.low)
    assert widths[0] < 0.2
    assert widths[1] > 0.4


def test_the_interval_of_a_share_is_one_of_shares() -> None:
    ours = np.array([[1.0], [2.0], [3.0], [4.0], [0.0]])
    found = improvement_probability(ours, np.full((5, 1), 0.5))
    assert found.value == pytest.approx(0.8)
    assert found.high == 1.0
    profile = performance_profile(ours, np.array([0.5]))
    assert profile.high == [1.0]


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
    found = iqm_difference(ours, theirs)
    assert (found.low, found.high, found.bounds) == (-4.0, 7.0, "range")
    assert -4.0 <= found.value <= 7.0
    found = _of_the_first_task(ours, theirs)
    assert (found.low, found.high, found.bounds) == (1.0, 7.0, "range")

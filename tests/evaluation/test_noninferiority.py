"""The rule for words about a difference: every status, its limits, and what noise does to it."""

from __future__ import annotations

import numpy as np
import pytest

from aaren_rl.evaluation.noninferiority import MOST_SEEDS, judge, seeds_to_decide
from aaren_rl.evaluation.statistics import Estimate, paired_difference

MARGIN = 5.0


def interval(low: float, value: float, high: float) -> Estimate:
    return Estimate(value, low, high, "95% interval")


@pytest.mark.parametrize(
    ("low", "value", "high", "status"),
    [
        (0.1, 2.0, 4.0, "better"),
        (0.0, 2.0, 4.0, "not worse"),  # 0 itself is not above 0
        (-4.9, 0.0, 5.0, "not worse"),
        (-4.9, -3.0, -1.0, "not worse"),
        (-5.0, 1.0, 7.0, "not decided"),  # neither is the margin above the margin
        (-40.0, 0.0, 40.0, "not decided"),
        (-9.0, -4.0, 0.0, "not decided"),
        (-9.0, -5.0, -0.1, "worse"),
        (-9.0, -8.0, -6.0, "worse"),
    ],
)
def test_statuses(low: float, value: float, high: float, status: str) -> None:
    found = judge(interval(low, value, high), MARGIN, seeds=5)
    assert found.status == status
    assert (found.seeds_needed is not None) == (status == "not decided")


def test_lower_within_the_margin_is_said_so() -> None:
    assert "lower, but by less" in judge(interval(-4.0, -3.0, -1.0), MARGIN, seeds=5).reason
    assert "lower" in judge(interval(-4.0, 3.0, 9.0), MARGIN, seeds=5).reason
    assert "by less" not in judge(interval(-4.0, 3.0, 9.0), MARGIN, seeds=5).reason


def test_the_margin_is_the_callers() -> None:
    difference = interval(-3.0, 1.0, 5.0)
    assert judge(difference, 3.5, seeds=5).status == "not worse"
    assert judge(difference, 2.5, seeds=5).status == "not decided"


def test_too_few_runs_have_no_words() -> None:
    """However clear the numbers: 5 seeds for a task; over all tasks also 10 runs an agent."""
    clear = interval(50.0, 60.0, 70.0)
    for seeds, runs, status in (
        (4, None, "no verdict"),
        (5, None, "better"),
        (5, 5, "no verdict"),  # one task: enough for its own verdict, not for one over all
        (4, 40, "no verdict"),  # ten tasks do not make up for four seeds
        (5, 10, "better"),
        (10, 10, "better"),
    ):
        assert judge(clear, MARGIN, seeds=seeds, runs=runs).status == status, (seeds, runs)
    assert judge(clear, MARGIN, seeds=3).reason == "3 seeds, 5 needed"
    assert judge(clear, MARGIN, seeds=1, runs=2).reason == (
        "1 seed and 2 runs of each agent, at least 5 and 10 needed"
    )
    with pytest.raises(ValueError, match="needs the difference's interval"):
        judge(Estimate(60.0, 50.0, 70.0, "range"), MARGIN, seeds=5)


def test_the_margin_says_nothing_of_plain_returns() -> None:
    found = judge(interval(50.0, 60.0, 70.0), MARGIN, seeds=9, normalized=False)
    assert found.status == "no verdict"
    assert "plain returns" in found.reason


def test_seeds_to_decide_by_hand() -> None:
    """Student's quantile over sqrt(seeds): 1.242 for 5, 0.769 for 9, 0.715 for 10, 0.308 for 43."""
    # The lower half, 10, must shrink below 1 + 5 = 6: below 0.745.
    assert seeds_to_decide(interval(-9.0, 1.0, 11.0), MARGIN, 5) == 10
    # Either the lower half, 8, below 1 (below 0.155), or the upper, 6, below 4 (below 0.828).
    assert seeds_to_decide(interval(-12.0, -4.0, 2.0), MARGIN, 5) == 9
    # At -margin itself only the upper end can decide: 20 below 5, below 0.310.
    assert seeds_to_decide(interval(-20.0, -5.0, 15.0), MARGIN, 5) == 43
    # In the middle between both limits, 2.5 from each: 60 below 2.5, below 0.052, 1,438 seeds.
    assert seeds_to_decide(interval(-62.5, -2.5, 57.5), MARGIN, 5) is None
    found = judge(interval(-62.5, -2.5, 57.5), MARGIN, seeds=5)
    assert f"more than {MOST_SEEDS:,} seeds" in found.reason
    assert "about 10 seeds" in judge(interval(-9.0, 1.0, 11.0), MARGIN, seeds=5).reason


def test_that_number_of_seeds_does_decide() -> None:
    """Differences that repeat those seen: undecided with half of the number, decided from it on."""
    seen = np.array([-24.0, 30.0, 3.0, -15.0, 18.0])
    found = judge(paired_difference(seen, np.zeros(5)), MARGIN, seeds=5)
    assert found.status == "not decided"
    assert found.seeds_needed is not None
    assert 15 < found.seeds_needed < 40
    for share, status in ((0.5, "not decided"), (1.2, "not worse")):
        times = round(share * found.seeds_needed / 5)
        more = np.tile(seen, times)
        difference = paired_difference(more, np.zeros(len(more)))
        assert judge(difference, MARGIN, seeds=len(more)).status == status


def test_noise_never_helps() -> None:
    """Noise that leaves the mean difference as it is: `not worse` becomes `not decided`."""
    theirs = np.array([40.0, 55.0, 61.0, 48.0, 70.0, 52.0])
    difference = np.array([1.0, -1.0, 0.5, -0.5, 1.0, -1.0])
    noise = np.array([-1.0, 1.0, -1.0, 1.0, -1.0, 1.0])
    ranks = []
    for size in (0.0, 2.0, 4.0, 8.0, 16.0, 64.0):
        ours = theirs + difference + size * noise
        found = paired_difference(ours, theirs)
        assert found.value == pytest.approx(0.0)
        ranks.append(judge(found, MARGIN, seeds=6).status)
    assert ranks[0] == "not worse"
    assert ranks[-1] == "not decided"
    assert ranks == sorted(ranks, key=["not worse", "not decided"].index)
    better = [
        judge(paired_difference(theirs + 6 + size * noise, theirs), MARGIN, seeds=6).status
        for size in (0.0, 5.0, 10.0, 20.0, 50.0)
    ]
    assert better[0] == "better"
    assert better[-1] == "not decided"
    assert better == sorted(better, key=["better", "not worse", "not decided"].index)

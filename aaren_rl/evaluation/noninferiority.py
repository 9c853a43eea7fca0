"""The rule that turns a difference between two agents into words: non-inferiority with a margin.

The margin is fixed before the experiment. A difference is `ours` less `theirs`, with the 95%
interval of paired runs:

- `better`: the interval lies above 0.
- `not worse`: its lower end lies above -margin. (Should all of it lie below 0 as well, `ours` is
  lower, but by less than the margin; the words say so.)
- `worse`: the interval lies below 0, and reaches to -margin or beyond.
- `not decided`: anything else, with the number of seeds that would decide it.
- `no verdict`: too few runs for words, or scores to which the margin does not apply.

More noise makes the interval wider and with it each of the first three statements harder to reach.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from aaren_rl.evaluation.statistics import FEWEST_SEEDS, Estimate, reach

DEFAULT_MARGIN = 5.0
"""Normalised points."""
FEWEST_RUNS = 10
"""The fewest runs of each agent for a verdict over all tasks, whose IQM counts half of them."""
MOST_SEEDS = 1000
"""More seeds than this are not reported as a number."""

Status = Literal["better", "not worse", "worse", "not decided", "no verdict"]


@dataclass(frozen=True)
class Verdict:
    """A status (see this module), and its reason as a clause that can end a sentence.

    `seeds_needed` is for `not decided`: about how many seeds would decide it; `None` when more than
    `MOST_SEEDS`.
    """

    status: Status
    reason: str
    seeds_needed: int | None = None


def judge(
    difference: Estimate,
    margin: float,
    *,
    seeds: int,
    runs: int | None = None,
    normalized: bool = True,
) -> Verdict:
    """Apply the rule to a difference of paired runs.

    A verdict needs at least `FEWEST_SEEDS` seeds of each task, and one over all tasks at least
    `FEWEST_RUNS` runs of each agent too. Many tasks do not make up for few seeds: runs are
    resampled within each task.

    Args:
        difference: `ours` less `theirs`.
        margin: positive, in the scores' points.
        seeds: paired runs of each task.
        runs: of each agent over all tasks; `None` for a difference on a single task.
        normalized: whether scores are normalised, as the margin is.

    Raises:
        ValueError: for enough runs and a difference without an interval.
    """
    if not normalized:
        return Verdict("no verdict", "scores are plain returns, to which the margin does not apply")
    few_runs = runs is not None and runs < FEWEST_RUNS
    if seeds < FEWEST_SEEDS or few_runs:
        had, needed = counted(seeds, "seed"), f"{FEWEST_SEEDS} needed"
        if runs is not None:
            had += f" and {counted(runs, 'run')} of each agent"
            needed = f"at least {FEWEST_SEEDS} and {FEWEST_RUNS} needed"
        return Verdict("no verdict", f"{had}, {needed}")
    if difference.bounds != "95% interval":
        raise ValueError("a verdict needs the difference's interval")
    assert difference.low is not None
    assert difference.high is not None
    if difference.low > 0:
        return Verdict("better", "the interval lies above 0")
    if difference.low > -margin:
        reason = f"the interval's lower end lies above {-margin:g}"
        if difference.high < 0:
            reason += "; all of it lies below 0: lower, but by less than the margin"
        return Verdict("not worse", reason)
    if difference.high < 0:
        return Verdict("worse", f"the interval lies below 0 and reaches to {-margin:g} or below")
    wanted = seeds_to_decide(difference, margin, seeds)
    count = f"about {wanted:,}" if wanted is not None else f"more than {MOST_SEEDS:,}"
    reason = f"{count} seeds would decide it if the observed difference is the true one"
    return Verdict("not decided", reason, wanted)


def seeds_to_decide(difference: Estimate, margin: float, seeds: int) -> int | None:
    """About how many seeds would end in `not worse` or `worse`.

    Assumes that the observed difference is the true one and that further seeds vary as those seen,
    so that the interval shrinks as `reach`. The smallest such number is returned, or `None` when it
    is more than `MOST_SEEDS`. It is rough: the difference is only known to its interval.
    """
    assert difference.low is not None
    assert difference.high is not None
    numbers = np.arange(seeds + 1, MOST_SEEDS + 1)
    shrunk = reach(numbers) / reach(seeds)
    low = difference.value - (difference.value - difference.low) * shrunk
    high = difference.value + (difference.high - difference.value) * shrunk
    deciding = numbers[(low > -margin) | (high < 0)]
    return int(deciding[0]) if len(deciding) else None


def counted(number: int, noun: str) -> str:
    """`1 seed`, `2 seeds`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"

"""How often intervals over five seeds hold the true difference of two agents: simulated.

    python -m benchmarks.intervals

Six tasks, five paired seeds, two agents whose scores have the same distribution, so that every true
difference is 0. Intervals are those of `aaren_rl.evaluation`, and the percentiles of rliable's
stratified bootstrap. The table is in docs/benchmark.md.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import numpy as np
from rliable.library import get_interval_estimates
from rliable.metrics import aggregate_iqm

from aaren_rl.evaluation.statistics import bootstrap, mean_interval

SEEDS = 5
MEANS = np.array([75.0, 77.0, 106.0, 49.0, 43.0, 95.0])
UNEQUAL = np.array([1.9, 5.6, 3.0, 0.4, 3.2, 0.9])
"""Deviations of differences between seeds, about those of benchmarks/results/zoo."""
Draw = Callable[[np.random.Generator], np.ndarray]
CASES: dict[str, tuple[np.ndarray, Draw]] = {
    "unequal deviations": (UNEQUAL, lambda rng: rng.normal(size=(SEEDS, 6))),
    "equal deviations": (np.full(6, 3.0), lambda rng: rng.normal(size=(SEEDS, 6))),
    "heavy tails": (UNEQUAL, lambda rng: rng.standard_t(3, size=(SEEDS, 6)) / np.sqrt(3)),
}


def percentiles(function: Callable[[np.ndarray], float], resamples: int) -> tuple[float, float]:
    """The bootstrap's 95% percentiles of a function of the runs' numbers `[seeds, tasks]`."""
    numbers = np.repeat(np.arange(SEEDS)[:, None], 6, axis=1)
    _, found = get_interval_estimates(
        {"all": numbers}, lambda chosen: np.array([function(chosen)]), reps=resamples
    )
    return float(found["all"][0, 0]), float(found["all"][1, 0])


def main() -> None:
    """Print the shares as a Markdown table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=300)
    parser.add_argument("--resamples", type=int, default=200)
    flags = parser.parse_args()
    tasks = np.arange(6)
    print("| | percentiles | here |\n|---|---|---|")
    for name, (deviations, draw) in CASES.items():
        rng, held = np.random.default_rng(0), np.zeros(4)
        for _ in range(flags.trials):
            theirs = MEANS + deviations * rng.normal(size=(SEEDS, 6)) / 2
            ours = theirs + deviations * draw(rng)
            first = mean_interval(ours[:, 1] - theirs[:, 1])
            [(_, low, high)] = bootstrap(
                [ours, theirs],
                lambda x, y: np.array([aggregate_iqm(x) - aggregate_iqm(y)]),
                flags.resamples,
            )

            pair = ours, theirs

            def task(chosen: np.ndarray, pair: tuple[np.ndarray, ...] = pair) -> float:
                ours, theirs = (scores[chosen[:, 1], 1].mean() for scores in pair)
                return float(ours - theirs)

            def all_tasks(chosen: np.ndarray, pair: tuple[np.ndarray, ...] = pair) -> float:
                ours, theirs = (aggregate_iqm(scores[chosen, tasks]) for scores in pair)
                return float(ours - theirs)

            assert first.low is not None
            assert first.high is not None
            ends = [percentiles(f, flags.resamples) for f in (task, all_tasks)]
            every = [ends[0], (first.low, first.high), ends[1], (low, high)]
            held += [a <= 0 <= b for a, b in every]
        shares = 100 * held / flags.trials
        print(f"| mean of one task, {name} | {shares[0]:.0f}% | {shares[1]:.0f}% |")
        print(f"| IQM over six tasks, {name} | {shares[2]:.0f}% | {shares[3]:.0f}% |", flush=True)


if __name__ == "__main__":
    main()

"""The finished runs of a benchmark's folder, read once, with scores paired by task and seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import NamedTuple

import numpy as np

from aaren_rl.errors import UserError
from aaren_rl.experiments.spec import BenchmarkSpec
from aaren_rl.experiments.sweep import is_asked, read_benchmark
from aaren_rl.experiments.unit import RESULT_FILE, Result, Row, read_record, units
from aaren_rl.training.config import agent_class


class Contender(NamedTuple):
    """An agent in one of its modes."""

    agent: str
    mode: str
    remembers: bool = True
    """Whether the mode makes a difference, as it does for agents with a memory."""

    @property
    def label(self) -> str:
        """Its name in tables: `decision-aaren (carry)`, or `behavior-cloning`."""
        return f"{self.agent} ({self.mode})" if self.remembers else self.agent


@dataclass(frozen=True)
class Outcome:
    """The results of a benchmark's folder.

    Attributes:
        spec: the benchmark; `tasks`, `agents` and `seeds` are those asked for, in its order.
        results: of each finished unit, by task, agent and seed.
    """

    spec: BenchmarkSpec
    tasks: list[str]
    agents: list[str]
    seeds: list[int]
    results: dict[tuple[str, str, int], Result]

    @property
    def missing(self) -> list[str]:
        """The runs that are not finished."""
        return [
            f"{task}/{agent}/seed-{seed}"
            for task in self.tasks
            for agent in self.agents
            for seed in self.seeds
            if (task, agent, seed) not in self.results
        ]

    def contender(self, agent: str, mode: str) -> Contender:
        """An agent of the spec in one of its modes."""
        kind = agent_class(self.spec.agents[agent].agent)
        return Contender(agent, mode, remembers=kind.has_memory)

    @cached_property
    def contenders(self) -> list[Contender]:
        """Every agent in every mode that has acted, in the spec's order."""
        acted = {
            (agent, row.mode)
            for (_, agent, _), result in self.results.items()
            for row in result.rows
        }
        return [
            self.contender(agent, mode)
            for agent in self.agents
            for mode in self.spec.agents[agent].modes
            if (agent, mode) in acted
        ]

    def of(self, task: str, agent: str) -> dict[int, Result]:
        """The finished results of a task and agent by seed."""
        found = {seed: self.results.get((task, agent, seed)) for seed in self.seeds}
        return {seed: result for seed, result in found.items() if result is not None}

    def scores(self, task: str, contender: Contender) -> dict[int, float]:
        """Each finished seed's score: the mean over its agents that count."""
        found = {
            seed: [row.score_mean for row in rows_of(result, contender, "score")]
            for seed, result in self.of(task, contender.agent).items()
        }
        return {seed: float(np.mean(scores)) for seed, scores in found.items() if scores}

    def normalized(self, task: str) -> bool:
        """Whether a task's scores are normalised, and so comparable with other tasks'."""
        rows = [
            row for agent in self.agents for r in self.of(task, agent).values() for row in r.rows
        ]
        return bool(rows) and all(row.normalized for row in rows)

    @cached_property
    def common_tasks(self) -> list[str]:
        """The tasks that are averaged: with normalised scores, and finished by every contender."""
        return [
            task
            for task in self.tasks
            if self.normalized(task) and all(self.scores(task, each) for each in self.contenders)
        ]

    def paired(self, contenders: Sequence[Contender], tasks: list[str]) -> list[np.ndarray] | None:
        """Scores `[runs, tasks]` of each contender, row i of all tables by the same seed.

        Of the seeds that all contenders have finished on all tasks; `None` when there are none.
        """
        columns = [[self.scores(task, each) for task in tasks] for each in contenders]
        every = [scores for each in columns for scores in each]
        seeds = [seed for seed in self.seeds if all(seed in scores for scores in every)]
        if not every or not seeds:
            return None
        return [np.array([[scores[seed] for scores in each] for seed in seeds]) for each in columns]


def rows_of(result: Result, contender: Contender, kind: str) -> list[Row]:
    """The evaluations of a kind (see `Row`) in the contender's mode."""
    return [row for row in result.rows if (row.kind, row.mode) == (kind, contender.mode)]


def read_outcome(folder: Path) -> Outcome:
    """Read a benchmark's folder; `UserError` when it is none, or no run is finished."""
    spec, asked = read_benchmark(folder)
    results = {
        (unit.task, unit.agent, unit.seed): read_record(unit.folder / RESULT_FILE, Result)
        for unit in units(spec, folder)
        if is_asked(unit, asked) and unit.finished
    }
    if not results:
        raise UserError(f"{folder}: no run is finished yet")
    return Outcome(spec, asked["tasks"], asked["agents"], asked["seeds"], results)

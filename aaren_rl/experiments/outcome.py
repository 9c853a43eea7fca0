"""What a benchmark's finished runs say, read once and put in order."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from aaren_rl.agents import AGENTS, TrajectoryAgent
from aaren_rl.errors import UserError
from aaren_rl.experiments.spec import BenchmarkSpec
from aaren_rl.experiments.sweep import read_benchmark
from aaren_rl.experiments.unit import units
from aaren_rl.files import read_json


class Contender(NamedTuple):
    """An agent in one of its modes."""

    agent: str
    mode: str
    remembers: bool = True
    """Whether the mode makes a difference: it does where there is a past to mix."""

    @property
    def label(self) -> str:
        """For people: `decision-aaren (carry)`, or `behavior-cloning`."""
        return f"{self.agent} ({self.mode})" if self.remembers else self.agent


@dataclass(frozen=True)
class Outcome:
    """The results of a benchmark's folder.

    Attributes:
        spec: the benchmark.
        tasks: asked for, in the spec's order.
        agents: likewise.
        seeds: likewise.
        results: what each finished unit left, by task, agent and seed.
    """

    spec: BenchmarkSpec
    tasks: list[str]
    agents: list[str]
    seeds: list[int]
    results: dict[tuple[str, str, int], dict[str, Any]]

    @property
    def asked(self) -> int:
        """How many runs were asked for."""
        return len(self.tasks) * len(self.agents) * len(self.seeds)

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
        kind = AGENTS[self.spec.agents[agent].agent]
        return Contender(agent, mode, remembers=issubclass(kind, TrajectoryAgent))

    @cached_property
    def contenders(self) -> list[Contender]:
        """Every agent in every mode that has acted, in the spec's order."""
        acted = {
            self.contender(agent, row["mode"])
            for (_, agent, _), result in self.results.items()
            for row in result["rows"]
        }
        every = [
            self.contender(agent, mode)
            for agent in self.agents
            for mode in self.spec.agents[agent].modes
        ]
        return [each for each in every if each in acted]

    def of(self, task: str, agent: str) -> dict[int, dict[str, Any]]:
        """The finished results of a task and agent by seed."""
        found = {seed: self.results.get((task, agent, seed)) for seed in self.seeds}
        return {seed: result for seed, result in found.items() if result is not None}

    def scores(self, task: str, contender: Contender) -> dict[int, float]:
        """Each finished seed's score: the mean over its agents that count."""
        scores = {}
        for seed, result in self.of(task, contender.agent).items():
            rows = self.rows(result, contender, "score")
            if rows:
                scores[seed] = float(np.mean([row["score_mean"] for row in rows]))
        return scores

    @staticmethod
    def rows(result: dict[str, Any], contender: Contender, kind: str) -> list[dict[str, Any]]:
        """The evaluations of one kind, `score` or `curve`, in the contender's mode."""
        return [
            row for row in result["rows"] if row["kind"] == kind and row["mode"] == contender.mode
        ]

    def normalized(self, task: str) -> bool:
        """Whether a task's scores are normalised, so that they can be put beside other tasks'."""
        rows = [
            row for agent in self.agents for r in self.of(task, agent).values() for row in r["rows"]
        ]
        return bool(rows) and all(row["normalized"] for row in rows)

    @cached_property
    def common_tasks(self) -> list[str]:
        """The tasks with normalised scores in which every contender has a finished run."""
        return [
            task
            for task in self.tasks
            if self.normalized(task)
            and all(self.scores(task, contender) for contender in self.contenders)
        ]

    def table(self, contender: Contender) -> np.ndarray | None:
        """Scores `[runs, tasks]` on the common tasks, of the seeds that are finished on all.

        `None` when there are none.
        """
        tables = self.paired([contender], self.common_tasks)
        return None if tables is None else tables[0]

    def paired(self, contenders: Sequence[Contender], tasks: list[str]) -> list[np.ndarray] | None:
        """Scores `[runs, tasks]` of each contender, row i of all tables by the same seed.

        The seeds are those that all of the contenders have finished on all of the tasks. `None`
        when there are none.
        """
        columns = [[self.scores(task, each) for task in tasks] for each in contenders]
        every = [scores for each in columns for scores in each]
        seeds = [seed for seed in self.seeds if all(seed in scores for scores in every)]
        if not every or not seeds:
            return None
        return [np.array([[scores[seed] for scores in each] for seed in seeds]) for each in columns]


def read_outcome(folder: Path) -> Outcome:
    """Read a benchmark's folder.

    Raises:
        UserError: when it is none, or no run is finished yet.
    """
    spec, asked = read_benchmark(folder)
    results = {}
    for unit in units(spec, folder):
        key = (unit.task, unit.agent, unit.config.seed)
        wanted = [unit.task in asked["tasks"], unit.agent in asked["agents"]]
        if all(wanted) and unit.config.seed in asked["seeds"] and unit.finished:
            results[key] = read_json(unit.folder / "result.json")
    if not results:
        raise UserError(f"{folder}: no run is finished yet")
    return Outcome(spec, asked["tasks"], asked["agents"], asked["seeds"], results)

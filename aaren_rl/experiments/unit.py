"""A unit of work: one task, agent and seed, trained and evaluated; nothing finished is repeated."""

from __future__ import annotations

import dataclasses
import resource
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from aaren_rl.agents import Agent, Mode, load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation import acting_cost, evaluate_agent
from aaren_rl.evaluation.evaluate import environment_of_agent
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.experiments.spec import BenchmarkSpec, EvaluationSpec
from aaren_rl.files import locked, read_json, write_json
from aaren_rl.training import TrainConfig, train
from aaren_rl.training.run import MAY_CHANGE, load_data
from aaren_rl.training.trainer import kept_folder

RESULT_FILE = "result.json"
COST_STEPS = 1000
LOCK_SECONDS = 60.0  # a killed sweep's last breath


@dataclass(frozen=True)
class Unit:
    """One run of a benchmark.

    Attributes:
        task: name of the task.
        agent: the agent's name in the benchmark.
        config: the training run, seed and folder included.
        modes: how to act.
        evaluation: how to evaluate.
        curve_targets: returns to ask for in the return-conditioning curve; those of
            `evaluation.curve_scores` when `None`.
    """

    task: str
    agent: str
    config: TrainConfig
    modes: tuple[Mode, ...]
    evaluation: EvaluationSpec
    curve_targets: tuple[float, ...] | None

    @property
    def name(self) -> str:
        """For people."""
        return f"{self.task}/{self.agent}/seed-{self.config.seed}"

    @property
    def folder(self) -> Path:
        """Where all of it lies."""
        return self.config.run_folder

    @property
    def first_episode(self) -> int:
        """The seed of its first evaluation episode after training."""
        return first_episode_seed(self.config.seed, "after training") + self.evaluation.seed

    def to_json(self) -> dict[str, Any]:
        """What makes this unit this unit: where it lies and on what it ran left out."""
        content = dataclasses.asdict(dataclasses.replace(self, config=TrainConfig()))
        config = self.config.to_json()
        return {**content, "config": {n: v for n, v in config.items() if n not in MAY_CHANGE}}

    @property
    def finished(self) -> bool:
        """Whether its result is there, and is that of the same unit."""
        file = self.folder / RESULT_FILE
        return file.is_file() and same(read_json(file)["unit"], self.to_json())


def same(one: Any, other: Any) -> bool:
    """Equality after a journey through JSON, which knows lists and no tuples."""
    if isinstance(one, dict) and isinstance(other, dict):
        return one.keys() == other.keys() and all(same(one[name], other[name]) for name in one)
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def units(spec: BenchmarkSpec, out: Path) -> list[Unit]:
    """All units of a spec: every task and agent with the first seed, then with the second."""
    return [
        Unit(
            task=task,
            agent=agent,
            config=dataclasses.replace(
                spec.train_config(task, agent, seed),
                out=out / task / agent / f"seed-{seed}",
                resume=True,
            ),
            modes=spec.agents[agent].modes,
            evaluation=spec.evaluation,
            curve_targets=spec.tasks[task].curve_targets,
        )
        for seed in spec.seeds
        for task in spec.tasks
        for agent in spec.agents
    ]


def work(unit: Unit) -> None:
    """Do what is left to do of a unit and write its result.

    Raises:
        UserError: as `train`, or when another process is at work in the folder.
        Interrupted: after Ctrl-C or SIGTERM; what is done is kept.
    """
    unit.folder.mkdir(parents=True, exist_ok=True)
    busy = f"{unit.folder}: another process is at work there"
    with locked(unit.folder / ".lock", busy, LOCK_SECONDS):
        if not unit.finished:
            _work(unit)


def _work(unit: Unit) -> None:
    summary = train(unit.config)
    agents = {
        update: load_agent(kept_folder(unit.folder, update)) for update in unit.config.kept_updates
    }
    rows = [_once(unit, name, measure) for name, measure in _measurements(unit, agents)]
    result = {
        "unit": unit.to_json(),
        "summary": summary,
        "rows": rows,
        "costs": [_once(unit, f"cost-{mode}", _cost(unit, agents, mode)) for mode in unit.modes],
        "peak_bytes": peak_bytes(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }
    write_json(unit.folder / RESULT_FILE, result)


def peak_bytes() -> int:
    """The most memory that this process has had, or, with a GPU, has had there."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _measurements(
    unit: Unit, agents: dict[int, Agent]
) -> Iterator[tuple[str, Callable[[], dict[str, Any]]]]:
    """Each evaluation, with a name for its file: all agents that count, then the last one's curve.

    An agent without an environment has none.
    """
    evaluation, last = unit.evaluation, max(agents)
    if unit.config.environment == "none" or agents[last].spec.environment is None:
        return
    for mode in unit.modes:
        for update, agent in agents.items():
            target = main_target(agent)
            yield _evaluation(unit, agent, update, mode, target, evaluation.episodes, "score")
        for target in curve_targets(unit, agents[last]):
            episodes = evaluation.curve_episodes
            yield _evaluation(unit, agents[last], last, mode, target, episodes, "curve")


def main_target(agent: Agent) -> float | None:
    """The return that the score is about: the first that the agent was trained to be asked."""
    return agent.spec.target_returns[0] if agent.asks_return else None


def curve_targets(unit: Unit, agent: Agent) -> tuple[float, ...]:
    """The returns to ask for in the return-conditioning curve.

    Raises:
        UserError: when only scores are given and the task has no reference scores.
    """
    if not agent.asks_return:
        return ()
    if unit.curve_targets is not None:
        return unit.curve_targets
    scores = unit.evaluation.curve_scores
    if not scores:
        return ()
    if agent.spec.reference_scores is None:
        raise UserError(
            f"tasks: {unit.task}: its data have no reference scores: "
            "give `curve_targets` (returns) to the task"
        )
    low, high = agent.spec.reference_scores
    return tuple(low + (high - low) * score / 100 for score in scores)


def _evaluation(
    unit: Unit,
    agent: Agent,
    update: int,
    mode: Mode,
    target: float | None,
    episodes: int,
    kind: str,
) -> tuple[str, Callable[[], dict[str, Any]]]:
    def measure() -> dict[str, Any]:
        [row] = evaluate_agent(
            agent,
            environment_of_agent(agent, unit.config.environment),
            modes=(mode,) if agent.has_memory else (),
            targets=() if target is None else (target,),
            episodes=episodes,
            seed=seed,
        )
        reference = agent.spec.reference_scores
        return {
            **row,
            "agent": unit.agent,
            "kind": kind,
            "update": update,
            "reference_scores": reference and list(reference),
        }

    seed = unit.first_episode
    asked = "none" if target is None else f"{target:.10g}"
    return f"{kind}-{update}-{mode}-{asked}-{episodes}-from-{seed}", measure


def _cost(unit: Unit, agents: dict[int, Agent], mode: Mode) -> Callable[[], dict[str, Any]]:
    """Acting's cost in the last agent's hands, on the data's observations."""

    def measure() -> dict[str, Any]:
        agent = agents[max(agents)]
        steps = COST_STEPS
        if agent.config.timestep_embedding == "learned":
            steps = min(steps, agent.config.max_episode_length)
        observations = load_data(unit.config).observations[:steps]
        own_mode = mode if agent.has_memory else None
        cost = acting_cost(agent, observations, mode=own_mode, steps=steps)
        return {
            "mode": mode,
            "act_microseconds": cost.act_microseconds,
            "steps": steps,
            "state_bytes_first": cost.state_bytes[0],
            "state_bytes_last": cost.state_bytes[-1],
        }

    return measure


def _once(unit: Unit, name: str, measure: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a measurement gave when it was made, now or before a crash."""
    file = unit.folder / "evaluations" / f"{name}.json"
    if not file.is_file():
        write_json(file, measure())
    row: dict[str, Any] = read_json(file)
    return row

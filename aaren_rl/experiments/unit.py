"""A unit of work: one agent, task and seed, trained and scored; nothing finished is repeated."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import resource
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import torch

from aaren_rl import evaluation
from aaren_rl.agents import Agent, load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.evaluation import acting_cost, score_rows
from aaren_rl.evaluation.evaluating import environment_of_agent
from aaren_rl.evaluation.length import LengthError
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.experiments.spec import BenchmarkSpec
from aaren_rl.files import locked, make_folder, read_card, write_card
from aaren_rl.records import convert, plain
from aaren_rl.registry import load_plugins
from aaren_rl.training import Interrupted, TrainConfig
from aaren_rl.training.build import load_data
from aaren_rl.training.loggers import flat_settings
from aaren_rl.training.resume import MAY_CHANGE
from aaren_rl.training.run import train_config
from aaren_rl.training.run_folder import SUMMARY_FILE, RunFolder
from aaren_rl.training.state import HeldOut

T = TypeVar("T")
RESULT_FILE, LOG_FILE = "result.json", "log.txt"
COST_STEPS = 1000
LOCK_SECONDS = 60.0  # workers of a killed sweep need some time to end


@dataclass(frozen=True)
class Evaluated:
    """One evaluation while training: what comparisons need of its `Score`, and its update."""

    score_mean: float
    target_return: float | None = None
    normalized: bool = True
    update: int = 0


@dataclass(frozen=True)
class Summary:
    """A training run's `summary.json`, as far as comparisons read it."""

    seed: int
    parameters: int
    train_seconds: float
    mode: str = "carry"
    dataset_score: float | None = None
    scores: list[Evaluated] = field(default_factory=list)
    history: list[Evaluated] = field(default_factory=list)
    offline: list[HeldOut] = field(default_factory=list)

    @property
    def errors(self) -> list[LengthError]:
        """Action errors of the last agent on held-out episodes; none when nothing was held out."""
        return self.offline[-1].lengths if self.offline else []


@dataclass(frozen=True, kw_only=True)
class Row(evaluation.Row):
    """One evaluation after training; `agent` is the agent's name in the benchmark.

    Attributes:
        kind: `score`, which counts, or `curve`, a point of the return-conditioning curve.
        update: the update after which the agent was kept.
        reference_scores: returns that count as 0 and 100; `None` when scores are plain returns.
    """

    kind: str
    update: int
    reference_scores: tuple[float, float] | None


@dataclass(frozen=True)
class Cost:
    """What acting costs in one mode: median time of a step, and bytes of the state at both ends."""

    mode: str
    act_microseconds: float
    steps: int
    state_bytes_first: int
    state_bytes_last: int


@dataclass(frozen=True)
class Request:
    """Of a unit's `result.json`, what was asked for; see `Unit.to_json`."""

    unit: dict[str, Any]


@dataclass(frozen=True)
class Result(Request):
    """A unit's whole `result.json`: also the results, and the machine."""

    summary: Summary
    rows: list[Row]
    costs: list[Cost]
    peak_bytes: int
    torch: str
    device: str
    threads: int


def read_record(file: Path, kind: type[T]) -> T:
    """A record from a JSON file, whose other fields are left out; `UserError` names a wrong one."""
    record: T = convert(read_card(file), kind, str(file))
    return record


@dataclass(frozen=True)
class Unit:
    """One run of a benchmark: a task, an agent and a seed of a spec, in a folder below `out`.

    Attributes:
        data: what to learn from, where it is in memory.
        varying: the settings in which the benchmark's runs differ.
    """

    spec: BenchmarkSpec
    task: str
    agent: str
    seed: int
    out: Path
    data: TrajectoryDataset | None = field(default=None, compare=False, repr=False)
    varying: frozenset[str] | None = None

    @property
    def name(self) -> str:
        """Task, agent and seed: for messages, and as a folder."""
        return f"{self.task}/{self.agent}/seed-{self.seed}"

    @property
    def folder(self) -> Path:
        """The folder of the training run and of its result."""
        return self.out / self.name

    @property
    def config(self) -> TrainConfig:
        """The training run."""
        config = self.spec.train_config(self.task, self.agent, self.seed)
        return dataclasses.replace(config, out=self.folder, resume=True)

    @property
    def modes(self) -> tuple[str, ...]:
        """How to act."""
        return self.spec.agents[self.agent].modes

    @property
    def first_episode(self) -> int:
        """The seed of its first evaluation episode after training."""
        return first_episode_seed(self.seed, "after training") + self.spec.evaluation.seed

    def to_json(self) -> dict[str, Any]:
        """What was asked for, as JSON values."""
        content = {
            "task": self.task,
            "agent": self.agent,
            "config": _identity(self.config),
            "modes": self.modes,
            "evaluation": dataclasses.asdict(self.spec.evaluation),
            "curve_targets": self.spec.tasks[self.task].curve_targets,
        }
        plain: dict[str, Any] = json.loads(json.dumps(content))  # lists for tuples
        return plain

    @property
    def finished(self) -> bool:
        """Whether its result is there, and is that of the same unit."""
        file = self.folder / RESULT_FILE
        if not file.is_file():
            return False
        before = read_record(file, Request).unit
        # An older version's config lacks the newer settings: reading it adds their defaults.
        before["config"] = _identity(TrainConfig.from_json(before.get("config", {}), file))
        return bool(json.loads(json.dumps(before)) == self.to_json())


def _identity(config: TrainConfig) -> dict[str, Any]:
    return {name: v for name, v in config.to_json().items() if name not in MAY_CHANGE}


def units(
    spec: BenchmarkSpec, out: Path, data: Mapping[str, TrajectoryDataset] | None = None
) -> list[Unit]:
    """All units of a spec: every task and agent with the first seed, then with the second.

    `data` are those of the tasks whose data are in memory.
    """
    places = [(task, agent, s) for s in spec.seeds for task in spec.tasks for agent in spec.agents]
    varying = varying_settings([spec.train_config(*place) for place in places])
    return [Unit(spec, *place, out, (data or {}).get(place[0]), varying) for place in places]


def varying_settings(runs: Sequence[TrainConfig]) -> frozenset[str]:
    """The settings in which runs differ, by name."""
    flat = [flat_settings(run.to_json()) for run in runs]
    names = {name for each in flat for name in each}
    return frozenset(n for n in names if len({each.get(n) for each in flat}) > 1)


def attempt(unit: Unit) -> str | None:
    """`work` with its output in the unit's log; the error in one line, or `None`."""
    unit.folder.mkdir(parents=True, exist_ok=True)
    with (
        open(unit.folder / LOG_FILE, "a") as log,
        contextlib.redirect_stdout(log),
        contextlib.redirect_stderr(log),
    ):
        try:
            work(unit)
        except Interrupted:
            raise KeyboardInterrupt from None
        except Exception as error:
            if not isinstance(error, UserError):
                traceback.print_exc()
                error = UserError(f"{type(error).__name__}: {error}")
            print(f"error: {error}", file=log)
            return str(error)
    return None


def work(unit: Unit) -> None:
    """Do what is left to do of a unit and write its result; errors as of `train`."""
    load_plugins(unit.spec.plugins)
    make_folder(unit.folder)
    busy = f"{unit.folder}: another process is at work there"
    with locked(unit.folder / ".lock", busy, LOCK_SECONDS):
        if not unit.finished:
            _work(unit)


def _work(unit: Unit) -> None:
    _reset_peak_memory()
    config = unit.config
    train_config(config, unit.data, varying=unit.varying)
    agents = {n: load_agent(RunFolder(unit.folder).kept(n)) for n in config.kept_updates}
    rows = _rows(unit, agents)
    costs = [_cost(unit, agents[max(agents)], mode) for mode in unit.modes]
    result = {
        "unit": unit.to_json(),
        "summary": read_card(unit.folder / SUMMARY_FILE),
        "rows": [dataclasses.asdict(row) for row in rows],
        "costs": [dataclasses.asdict(cost) for cost in costs],
        "peak_bytes": peak_bytes(),
        "torch": torch.__version__,
        "device": torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu",
        "threads": torch.get_num_threads(),
    }
    write_card(unit.folder / RESULT_FILE, result, [])


def _reset_peak_memory() -> None:
    """Let `peak_bytes` count from now on (Linux; elsewhere from the process' start)."""
    with contextlib.suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    if torch.cuda.is_available():
        torch.cuda.reset_peak_memory_stats()


def peak_bytes() -> int:
    """The most memory that this process has had, or, with a GPU, has had there."""
    if torch.cuda.is_available() and torch.cuda.max_memory_allocated():
        return torch.cuda.max_memory_allocated()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def _rows(unit: Unit, agents: dict[int, Agent]) -> list[Row]:
    """Each evaluation: all agents that count, then the last one's return-conditioning curve.

    An agent without an environment has none.
    """
    spec, last = unit.spec.evaluation, max(agents)
    if unit.config.environment == "none" or agents[last].spec.environment is None:
        return []
    counting = [(n, agent.usual_target, spec.episodes, "score") for n, agent in agents.items()]
    targets = _curve_targets(unit, agents[last])
    curve = [(last, target, spec.curve_episodes, "curve") for target in targets]
    asked = [(mode, *each) for mode in unit.modes for each in (*counting, *curve)]
    return [_row(unit, agents[each[1]], *each) for each in asked]


def _curve_targets(unit: Unit, agent: Agent) -> tuple[float, ...]:
    """The returns to ask for in the return-conditioning curve.

    None where only scores are given and the task has no reference scores to translate them.
    """
    if not agent.asks_return:
        return ()
    given = unit.spec.tasks[unit.task].curve_targets
    low, high = agent.spec.reference_scores or (0.0, 0.0)
    if given is not None or low == high:
        return given or ()
    return tuple(low + (high - low) * s / 100 for s in unit.spec.evaluation.curve_scores)


def _row(
    unit: Unit, agent: Agent, mode: Any, update: int, target: float | None, episodes: int, kind: str
) -> Row:
    def measure() -> Row:
        [row] = score_rows(
            agent,
            environment_of_agent(agent, unit.config.environment),
            modes=(mode if agent.has_memory else None,),
            targets=() if target is None else (target,),
            episodes=episodes,
            seed=unit.first_episode,
        )
        own = {"agent": unit.agent, "mode": mode, "kind": kind, "update": update}
        return Row(**{**vars(row), **own}, reference_scores=agent.spec.reference_scores)

    asked = "none" if target is None else f"{target:.10g}"
    name = f"{kind}-{update}-{mode}-{asked}-{episodes}-from-{unit.first_episode}"
    return _once(unit, Row, name, measure)


def _cost(unit: Unit, agent: Agent, mode: Any) -> Cost:
    def measure() -> Cost:
        steps = acting_steps(agent)
        observations = (unit.data or load_data(unit.config)).observations[:steps]
        own_mode = mode if agent.has_memory else None
        cost = acting_cost(agent, observations, mode=own_mode, steps=steps)
        return Cost(mode, cost.act_microseconds, steps, cost.state_bytes[0], cost.state_bytes[-1])

    return _once(unit, Cost, f"cost-{mode}", measure)


def acting_steps(agent: Agent) -> int:
    """How many steps to measure acting for: `COST_STEPS`, or as many as the agent can act."""
    if agent.config.timestep_embedding == "learned":
        return min(COST_STEPS, agent.config.max_episode_length)
    return COST_STEPS


def _once(unit: Unit, kind: type[T], name: str, measure: Callable[[], T]) -> T:
    """What a measurement gave when it was made, now or before a crash."""
    file = unit.folder / "evaluations" / f"{name}.json"
    if not file.is_file():
        write_card(file, plain(measure()), [])
    return read_record(file, kind)

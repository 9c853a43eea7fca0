"""A benchmark as a file: tasks x agents x seeds x settings, read and checked before any work."""

from __future__ import annotations

import dataclasses
import itertools
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, get_origin, get_type_hints

from msgspec import Meta

from aaren_rl.agents import AgentConfig
from aaren_rl.errors import UserError, unknown
from aaren_rl.evaluation.noninferiority import DEFAULT_MARGIN
from aaren_rl.evaluation.seeds import EPISODES_PER_BLOCK
from aaren_rl.experiments.config import check_one_dataset
from aaren_rl.layout import LARGEST_RETURN
from aaren_rl.records import convert, decode, plain, read_yaml
from aaren_rl.registry import load_plugins
from aaren_rl.training import TrainConfig
from aaren_rl.training.config import TrainSettings, agent_class
from aaren_rl.training.presets import from_settings

Count = Annotated[int, Meta(ge=1)]
ELSEWHERE = {
    "dataset": "give it to each task",
    "mode": "give `modes` to each agent",
    "keep_evaluated": "`checkpoint` decides it",
    "devices": "a run takes one; for one run over several use torchrun with aaren-rl train",
    "data_cache": "it is about a machine, not about the benchmark",
    "model": "give its fields themselves",
}
"""Fields of a training run that a spec's `settings` cannot hold, and what to do instead."""


@dataclass(frozen=True)
class TaskSpec:
    """Data to learn from, and where to act."""

    dataset: str
    """As `aaren-rl train --dataset`."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of this task alone."""
    curve_targets: tuple[float, ...] | None = None
    """Returns to ask for in the return-conditioning curve, instead of `curve_scores`."""


@dataclass(frozen=True)
class ContenderSpec:
    """An agent and how it acts."""

    agent: str
    """A name that `aaren-rl train --agent` knows, of a plug-in too."""
    modes: tuple[str, ...]
    """How to act in evaluations; the first is used for the learning curve too."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of this agent alone."""


@dataclass(frozen=True)
class EvaluationSpec:
    """Acting after training."""

    episodes: Count = 10
    """For each agent that counts, in each mode, asked for the task's usual return."""
    seed: Annotated[int, Meta(ge=0)] = 0
    """How many of a run's evaluation episodes are skipped: another number draws other episodes.
    Runs with different seeds see different episodes, all agents see the same; see
    `aaren_rl.evaluation.seeds`."""
    curve_scores: tuple[float, ...] = ()
    """Return-conditioning curve: what to ask for, in normalised scores (0 to 100)."""
    curve_episodes: Count = 5
    """Episodes for each point of that curve."""


@dataclass(frozen=True)
class MeanOfLast:
    """The score of a run is the mean over the agents of its last evaluations."""

    mean_of_last: Count


@dataclass(frozen=True)
class Claim:
    """Whom the report compares: `ours` in one mode, `rival` in its best."""

    ours: str
    mode: str
    rival: str
    margin: Annotated[float, Meta(gt=0)] = DEFAULT_MARGIN
    """How many normalised points `ours` may lie below and still count as not worse."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """A benchmark: tasks, agents, seeds and settings."""

    name: str
    """Names the folder and the report."""
    tasks: dict[str, TaskSpec]
    agents: dict[str, ContenderSpec]
    seeds: tuple[int, ...]
    claim: Claim | None = None
    """What the report's first line decides."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of all runs: the fields of `aaren-rl train`, with underscores."""
    checkpoint: str | MeanOfLast = "last"
    """Which agent of a run counts: the last, or {mean_of_last: K} evaluations. Never the best."""
    evaluation: EvaluationSpec = field(default_factory=EvaluationSpec)
    plugins: tuple[str, ...] = ()
    """Modules to import first: they register agents, mixers or data sources."""

    @property
    def kept(self) -> int:
        """How many agents of a run count."""
        return self.checkpoint.mean_of_last if isinstance(self.checkpoint, MeanOfLast) else 1

    def train_config(self, task: str, agent: str, seed: int) -> TrainConfig:
        """The training run of one task, agent and seed; its folder is not set."""
        contender = self.agents[agent]
        shared = {**self.settings, **self.tasks[task].settings}
        kind = agent_class(contender.agent)
        condition = {**shared, **contender.settings}.get("condition", "target")
        if not kind.asks_return or condition != "target":
            shared.pop("target_return", None)  # meant for the other agents
        run = {
            "dataset": self.tasks[task].dataset,
            "agent": contender.agent,
            "seed": seed,
            "mode": contender.modes[0] if kind.has_memory else None,
            "keep_evaluated": self.kept,
        }
        return from_settings(TrainConfig, {**shared, **contender.settings, **run})

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; an infinite setting as text, which `parse_spec` reads."""
        content: dict[str, Any] = _without_infinity(plain(self))
        return content


def _without_infinity(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _without_infinity(each) for name, each in value.items()}
    return str(value) if isinstance(value, float) and math.isinf(value) else value


def read_spec(file: Path) -> BenchmarkSpec:
    """Read a benchmark's spec.

    Raises:
        UserError: for anything wrong in it; one line with the file, the field and what is expected.
    """
    return parse_spec(read_yaml(file), str(file))


def parse_spec(content: Any, where: str) -> BenchmarkSpec:
    """A spec from plain values; see `read_spec`."""
    if isinstance(content, dict):
        plugins = convert(content.get("plugins", ()), tuple[str, ...], f"{where}: plugins")
        try:
            load_plugins(plugins)
        except UserError as error:
            raise UserError(f"{where}: plugins: {error}") from None
        content = {name: _part(name, each, f"{where}: {name}") for name, each in content.items()}
    spec = decode(BenchmarkSpec, content, where)
    places = {"settings": spec.settings}
    places |= {f"tasks: {name}: settings": task.settings for name, task in spec.tasks.items()}
    places |= {f"agents: {name}: settings": each.settings for name, each in spec.agents.items()}
    for place, settings in places.items():
        _check_settings(settings, f"{where}: {place}")
    _check(spec, where)
    return spec


def _part(name: str, content: Any, where: str) -> Any:
    """A field of the spec with its records decoded, so that messages name the place in them."""
    if name == "tasks" and isinstance(content, dict):
        return {key: decode(TaskSpec, each, f"{where}: {key}") for key, each in content.items()}
    if name == "agents" and isinstance(content, dict):
        return {key: _contender(key, each, f"{where}: {key}") for key, each in content.items()}
    if name == "checkpoint" and isinstance(content, dict):
        return decode(MeanOfLast, content, where)
    if name == "evaluation":
        return decode(EvaluationSpec, content, where)
    if name == "claim" and content is not None:
        return decode(Claim, content, where)
    return content


def _contender(name: Any, content: Any, where: str) -> ContenderSpec:
    """By default an agent has the registered name that it is called by, and its default mode."""
    content = {} if content is None else content
    if isinstance(content, dict):
        content = {"agent": name, "modes": (), **content}
    contender = decode(ContenderSpec, content, where)
    kind = agent_class(contender.agent, f"{where}: agent:")
    modes = contender.modes or (kind.default_mode,)
    return dataclasses.replace(contender, modes=modes)


def _check_settings(settings: dict[str, Any], where: str) -> None:
    """Check each setting's name and type, and convert its value."""
    hints = {**get_type_hints(TrainSettings), **get_type_hints(AgentConfig)}
    hints = {name: hint for name, hint in hints.items() if get_origin(hint) is not ClassVar}
    for name, value in settings.items():
        if name in ELSEWHERE:
            raise UserError(f"{where}: {name}: {ELSEWHERE[name]}")
        if name not in hints:
            raise UserError(f"{where}: {unknown('setting', name, hints)}")
        settings[name] = convert(value, hints[name], f"{where}: {name}")


def _check(spec: BenchmarkSpec, where: str) -> None:
    def expect(holds: bool, words: str) -> None:
        if not holds:
            raise UserError(f"{where}: {words}")

    for name in ("tasks", "agents", "seeds"):
        values = list(getattr(spec, name))
        expect(0 < len(values) == len(set(values)), f"{name}: expected one or more, each once")
    for name in (spec.name, *spec.tasks, *spec.agents):
        fits = name.strip() and not name.startswith(".") and not set(name) & set('/\\:*?"<>|')
        expect(bool(fits), f"{name!r}: expected a name that can be a folder's")
    rule = isinstance(spec.checkpoint, MeanOfLast) or spec.checkpoint == "last"
    expect(rule, f"checkpoint: expected last or {{mean_of_last: K}}, got {spec.checkpoint!r}")
    evaluation = spec.evaluation
    most = evaluation.seed + max(evaluation.episodes, evaluation.curve_episodes)
    expect(
        most <= EPISODES_PER_BLOCK,
        f"evaluation: seed and episodes: expected at most {EPISODES_PER_BLOCK} together, so that "
        "runs with different seeds share no episodes",
    )
    finite = all(map(math.isfinite, evaluation.curve_scores))
    expect(finite, "evaluation: curve_scores: expected finite numbers")
    for name, data in spec.tasks.items():
        check_one_dataset(data.dataset, f"{where}: tasks: {name}: dataset:")
        targets = data.curve_targets or ()
        fits = all(abs(each) <= LARGEST_RETURN for each in targets)
        expect(fits, f"tasks: {name}: curve_targets: expected returns up to {LARGEST_RETURN:g}")
    for name, each in spec.agents.items():
        place, known = f"agents: {name}: modes", agent_class(each.agent).modes
        expect(len(set(each.modes)) == len(each.modes), f"{place}: expected each once")
        for mode in each.modes:
            known_mode = f"{place}: {each.agent} knows {', '.join(known)}, got {mode}"
            expect(mode in known, known_mode)
    if spec.claim is not None:
        claim, names = spec.claim, ", ".join(spec.agents)
        for part, name in (("ours", claim.ours), ("rival", claim.rival)):
            expect(name in spec.agents, f"claim: {part}: expected one of {names}, got {name!r}")
        modes = spec.agents[claim.ours].modes
        expect(claim.mode in modes, f"claim: mode: expected one of {', '.join(modes)}")
        expect(math.isfinite(claim.margin), "claim: margin: expected a finite number")
    for task, agent, seed in itertools.product(spec.tasks, spec.agents, spec.seeds):
        try:
            spec.train_config(task, agent, seed).check()
        except UserError as error:
            raise UserError(f"{where}: {task}, {agent}: {error}") from None

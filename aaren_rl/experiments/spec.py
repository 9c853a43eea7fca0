"""A benchmark as a file: tasks x agents x seeds x settings, read and checked before any work."""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, get_type_hints

from aaren_rl.agents import AGENTS, AgentConfig, Mode
from aaren_rl.errors import UserError
from aaren_rl.evaluation.noninferiority import DEFAULT_MARGIN
from aaren_rl.evaluation.seeds import EPISODES_PER_BLOCK
from aaren_rl.experiments.fields import build, checked, read_yaml
from aaren_rl.training import TrainConfig, from_preset
from aaren_rl.training.config import AgentName, TrainSettings

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
    """Returns to ask for in the return-conditioning curve, in place of `curve_scores`."""


@dataclass(frozen=True)
class ContenderSpec:
    """An agent and how it acts."""

    agent: AgentName
    modes: tuple[Mode, ...]
    """How to act in evaluations; the first is used for the learning curve too."""
    settings: dict[str, Any] = field(default_factory=dict)
    """Of this agent alone."""


@dataclass(frozen=True)
class EvaluationSpec:
    """Acting after training."""

    episodes: int = 10
    """For each agent that counts, in each mode, asked for the task's usual return."""
    seed: int = 0
    """How many of a run's evaluation episodes are skipped: another number draws other episodes.
    Runs with different seeds see different episodes, all agents see the same; see
    `aaren_rl.evaluation.seeds`."""
    curve_scores: tuple[float, ...] = ()
    """Return-conditioning curve: what to ask for, in normalised scores (0 to 100)."""
    curve_episodes: int = 5
    """Episodes for each point of that curve."""


@dataclass(frozen=True)
class MeanOfLast:
    """The score of a run is the mean over the agents of its last evaluations."""

    mean_of_last: int


@dataclass(frozen=True)
class Claim:
    """Whom the report compares: `ours` in one mode, `rival` in its best."""

    ours: str
    mode: Mode
    rival: str
    margin: float = DEFAULT_MARGIN
    """How many normalised points `ours` may lie below and still count as not worse."""


@dataclass(frozen=True)
class BenchmarkSpec:
    """Everything that a benchmark is told."""

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

    @property
    def kept(self) -> int:
        """How many agents of a run count."""
        return self.checkpoint.mean_of_last if isinstance(self.checkpoint, MeanOfLast) else 1

    def train_config(self, task: str, agent: str, seed: int) -> TrainConfig:
        """The training run of one task, agent and seed; its folder is not set."""
        contender = self.agents[agent]
        shared = {**self.settings, **self.tasks[task].settings}
        kind = AGENTS[contender.agent]
        condition = {**shared, **contender.settings}.get("condition", "target")
        if not kind.asks_return or condition != "target":
            shared.pop("target_return", None)  # meant for the other agents
        given = {**shared, **contender.settings}
        shape = {field.name for field in dataclasses.fields(AgentConfig)}
        preset = given.get("preset")
        plain = TrainConfig() if preset is None else from_preset(TrainConfig, preset)
        return dataclasses.replace(
            plain,
            dataset=self.tasks[task].dataset,
            agent=contender.agent,
            seed=seed,
            mode=contender.modes[0] if kind.has_memory else None,
            keep_evaluated=self.kept,
            model=dataclasses.replace(
                plain.model, **{name: given[name] for name in given if name in shape}
            ),
            **{name: given[name] for name in given if name not in shape},
        )

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; an infinite setting as text, which `parse_spec` reads."""
        content: dict[str, Any] = _without_infinity(dataclasses.asdict(self))
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
    """A spec from plain values; see `read_spec`.

    Args:
        content: what the file holds.
        where: the file's name, for messages.
    """
    if isinstance(content, dict) and isinstance(content.get("agents"), dict):
        agents = {name: _with_defaults(name, each) for name, each in content["agents"].items()}
        content = {**content, "agents": agents}
    spec = build(BenchmarkSpec, content, where)
    places = {"settings": spec.settings}
    places |= {f"tasks: {name}: settings": task.settings for name, task in spec.tasks.items()}
    places |= {f"agents: {name}: settings": each.settings for name, each in spec.agents.items()}
    for place, settings in places.items():
        _check_settings(settings, f"{where}: {place}")
    _check(spec, where)
    return spec


def _with_defaults(name: Any, content: Any) -> Any:
    """An agent that is named as what it is need not say so, nor its usual mode."""
    content = {} if content is None else content
    if not isinstance(content, dict):
        return content
    content = {"agent": name, **content}
    kind = AGENTS.get(content["agent"]) if isinstance(content["agent"], str) else None
    return {"modes": [] if kind is None else [kind.default_mode], **content}


def _check_settings(settings: dict[str, Any], where: str) -> None:
    """Check each setting's name and type; numbers and tuples are put in their place."""
    hints = {**get_type_hints(TrainSettings), **get_type_hints(AgentConfig)}
    for name, value in settings.items():
        if name in ELSEWHERE:
            raise UserError(f"{where}: {name}: {ELSEWHERE[name]}")
        if name not in hints:
            raise UserError(f"{where}: {name}: not a field of a training run")
        settings[name] = checked(value, hints[name], f"{where}: {name}")


def _check(spec: BenchmarkSpec, where: str) -> None:
    for name in ("tasks", "agents", "seeds"):
        values = list(getattr(spec, name))
        if not values or len(set(values)) < len(values):
            raise UserError(f"{where}: {name}: at least one expected, each once, got {values}")
    for name in (spec.name, *spec.tasks, *spec.agents):
        if not name.strip() or name.startswith(".") or set(name) & set('/\\:*?"<>|'):
            raise UserError(f"{where}: {name!r}: a name that can be a folder's expected")
    if isinstance(spec.checkpoint, str) and spec.checkpoint != "last":
        raise UserError(
            f"{where}: checkpoint: last or {{mean_of_last: K}} expected, got {spec.checkpoint!r}"
        )
    for name, value in (
        ("checkpoint: mean_of_last", spec.kept),
        ("evaluation: episodes", spec.evaluation.episodes),
        ("evaluation: curve_episodes", spec.evaluation.curve_episodes),
    ):
        if value < 1:
            raise UserError(f"{where}: {name}: at least 1 expected, got {value}")
    evaluation = spec.evaluation
    if evaluation.seed < 0:
        raise UserError(f"{where}: evaluation: seed: at least 0 expected")
    if evaluation.seed + max(evaluation.episodes, evaluation.curve_episodes) > EPISODES_PER_BLOCK:
        raise UserError(
            f"{where}: evaluation: seed and episodes: together at most {EPISODES_PER_BLOCK} "
            "expected, so that runs with different seeds share no episodes"
        )
    _check_agents(spec, where)
    for task in spec.tasks:
        for agent in spec.agents:
            try:
                for seed in spec.seeds:
                    spec.train_config(task, agent, seed).check()
            except UserError as error:
                raise UserError(f"{where}: {task}, {agent}: {error}") from None


def _check_agents(spec: BenchmarkSpec, where: str) -> None:
    for name, each in spec.agents.items():
        known = AGENTS[each.agent].modes
        if not each.modes or len(set(each.modes)) < len(each.modes):
            raise UserError(f"{where}: agents: {name}: modes: at least one expected, each once")
        for mode in each.modes:
            if mode not in known:
                raise UserError(
                    f"{where}: agents: {name}: modes: {each.agent} knows {', '.join(known)}, "
                    f"got {mode}"
                )
    claim = spec.claim
    if claim is None:
        return
    for part, name in (("ours", claim.ours), ("rival", claim.rival)):
        if name not in spec.agents:
            raise UserError(
                f"{where}: claim: {part}: one of the agents {', '.join(spec.agents)} expected, "
                f"got {name!r}"
            )
    if claim.mode not in spec.agents[claim.ours].modes:
        raise UserError(f"{where}: claim: mode: one of {claim.ours}'s modes expected")
    if not (math.isfinite(claim.margin) and claim.margin > 0):
        raise UserError(f"{where}: claim: margin: a positive number expected, got {claim.margin}")

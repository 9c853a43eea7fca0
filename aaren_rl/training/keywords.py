"""The settings of runs from keywords."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any, TypeVar

from aaren_rl.agents import Agent, AgentConfig
from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.records import closest, typed
from aaren_rl.training.config import TrainConfig, TrainSettings
from aaren_rl.training.presets import from_preset

S = TypeVar("S", bound=TrainSettings)
SHAPE = frozenset(field.name for field in dataclasses.fields(AgentConfig))
"""Settings of the agent, which a config holds in its field `model`."""
ARGUMENTS = ("agent", "dataset", "environment", "preset")
"""Fields of `TrainConfig` that are no settings of `train` but arguments of its own."""


def from_settings(kind: type[S], settings: dict[str, Any]) -> S:
    """A config from flat settings, of which those of `AgentConfig` go to the model.

    Args:
        kind: `TrainConfig` or `CompareConfig`.
        settings: fields of `kind` and of `AgentConfig`; a preset among them gives other defaults.

    Raises:
        UserError: for a setting that neither has; names the closest.
    """
    own = {field.name for field in dataclasses.fields(kind)} - {"model"}
    for name in settings:
        if name not in SHAPE | own:
            raise UserError(f"no setting {name!r}; {closest(name, SHAPE | own)}")
    preset = settings.get("preset")
    plain = kind() if preset is None else from_preset(kind, preset)
    of_model = {name: value for name, value in settings.items() if name in SHAPE}
    others = {name: value for name, value in settings.items() if name in own}
    model = dataclasses.replace(plain.model, **of_model)
    return dataclasses.replace(plain, **others, model=model)


def config_from_keywords(
    data: TrajectoryDataset | str | Path,
    agent: str | Agent,
    preset: str | None,
    env: Any,
    settings: dict[str, Any],
) -> TrainConfig:
    """The keywords of `train` as a config.

    Raises:
        UserError: for a setting that nothing has, or a value of another type.
    """
    for name in settings.keys() & ARGUMENTS:
        raise UserError(f"train() has no setting {name!r}")
    target = settings.get("target_return")
    if isinstance(target, (int, float)):
        settings = {**settings, "target_return": (target,)}
    of_agent = sorted(SHAPE & settings.keys())
    if isinstance(agent, Agent) and of_agent:
        raise UserError(f"{', '.join(of_agent)}: the agent that was given is made already")
    config = from_settings(TrainConfig, {**settings, "preset": preset})
    return typed(
        dataclasses.replace(
            config,
            dataset=data.name if isinstance(data, TrajectoryDataset) else str(data),
            agent=agent.name if isinstance(agent, Agent) else agent,
            environment=env if isinstance(env, str) else None,
            model=agent.config if isinstance(agent, Agent) else config.model,
        ),
        "train()",
    )

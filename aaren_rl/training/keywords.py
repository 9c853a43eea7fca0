"""The keywords of `train` as a config."""

from __future__ import annotations

import dataclasses
import difflib
from pathlib import Path
from typing import Any

from aaren_rl.agents import Agent, AgentConfig
from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.records import typed
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.presets import from_preset


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
    known, shape = _known_settings()
    for name in settings:
        if name not in known | shape:
            close = difflib.get_close_matches(name, known | shape, n=1)
            hint = f"; did you mean {close[0]}?" if close else ""
            raise UserError(f"train() has no setting {name!r}{hint}")
    config = TrainConfig() if preset is None else from_preset(TrainConfig, preset)
    changes: dict[str, Any] = {name: settings[name] for name in known & settings.keys()}
    if isinstance(changes.get("target_return"), (int, float)):
        changes["target_return"] = (changes["target_return"],)
    of_agent = {name: settings[name] for name in shape & settings.keys()}
    if isinstance(agent, Agent):
        if of_agent:
            raise UserError(
                f"{', '.join(sorted(of_agent))}: the agent that was given is made already"
            )
        model = agent.config
    else:
        model = dataclasses.replace(config.model, **of_agent)
    return typed(
        dataclasses.replace(
            config,
            **changes,
            dataset=data.name if isinstance(data, TrajectoryDataset) else str(data),
            agent=agent.name if isinstance(agent, Agent) else agent,
            environment=env if isinstance(env, str) else None,
            model=model,
        ),
        "train()",
    )


def _known_settings() -> tuple[set[str], set[str]]:
    """Fields that `train` takes as keywords: of the config, and of the agent's."""
    known = {each.name for each in dataclasses.fields(TrainConfig)}
    known -= {"model", "dataset", "agent", "environment", "preset"}
    return known, {each.name for each in dataclasses.fields(AgentConfig)}

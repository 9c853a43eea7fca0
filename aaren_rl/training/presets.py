"""Configs from settings, and named settings that were measured to work for a kind of task.

A preset only changes defaults: settings that are given override it. From Python:

    config = from_preset(TrainConfig, "memory", dataset="memory/passive-tmaze-v0", updates=3000)
"""

from __future__ import annotations

import dataclasses
import math
from numbers import Real
from typing import Any, TypeVar

from aaren_rl.agents import AgentConfig
from aaren_rl.errors import UserError, unknown
from aaren_rl.training.config import TrainSettings

S = TypeVar("S", bound=TrainSettings)
SHAPE = frozenset(field.name for field in dataclasses.fields(AgentConfig))
"""Settings of the agent, which a config holds in its field `model`."""

PRESETS: dict[str, dict[str, Any]] = {
    # Decision Transformer as its authors' code trains it (Chen et al. 2021, arXiv 2106.01345), for
    # any of our agents. What still differs is listed in docs/learning.md.
    "chen2021": {
        "updates": 100_000,
        "learning_rate": 1e-4,
        "warmup": 0.1,  # 10,000 updates of 100,000
        "schedule": "constant",
        "weight_decay": 1e-4,
        "precision": "32",
        "held_out": 0.0,
        "standardize_returns": False,
        "windows": "inside",
        "model": AgentConfig(
            heads=1,
            dropout=0.1,
            embedding_dropout=0.1,
            attention_dropout=0.1,
            activation="relu",
            timestep_embedding="learned",
            embedding_start="original",
            observation_clip=math.inf,
        ),
    },
    # Robots: what was just seen matters most. Three heads forget half in 1, 4 and 15 steps, so that
    # the carried state weighs the past as a window does, and one keeps all (docs/control.md).
    "control": {
        "model": AgentConfig(heads=4, recency=(0.25, 0.0625, 0.015625, 0.0)),
    },
    # Agents that must keep something for a long time: why each of these is in docs/memory.md.
    "memory": {
        "sampling": "episodes",
        "batch_steps": 1000,
        "updates": 2400,
        "learning_rate": 1e-3,
        "precision": "32",
        "normalize_observations": False,
        "standardize_returns": False,
        "model": AgentConfig(
            layers=2,
            width=64,
            heads=4,
            dropout=0.0,
            attention_dropout=0.0,
            timestep_embedding="none",
            dilution=100.0,
        ),
    },
}


def from_preset(kind: type[S], name: str, **settings: Any) -> S:
    """A config with a preset's settings as defaults; `UserError` for an unknown preset.

    Args:
        kind: `TrainConfig` or `CompareConfig`.
        name: a key of `PRESETS`; the config's field `preset`.
        settings: fields of the config, which override the preset's.
    """
    if name not in PRESETS:
        *some, last = sorted(PRESETS)
        raise UserError(f"--preset {name!r}: {', '.join(some)} or {last} expected")
    return kind(**{**PRESETS[name], "preset": name, **settings})


def from_settings(kind: type[S], settings: dict[str, Any]) -> S:
    """A config from flat settings: fields of `kind` and of `AgentConfig`, which go to the model.

    A preset among them gives other defaults; `target_return` may be one number. `UserError` for an
    unknown setting.
    """
    own = {field.name for field in dataclasses.fields(kind)} - {"model"}
    for name in settings:
        if name not in SHAPE | own:
            raise UserError(unknown("setting", name, SHAPE | own))
    if isinstance(target := settings.get("target_return"), Real):
        settings = {**settings, "target_return": (target,)}
    preset = settings.get("preset")
    plain = kind() if preset is None else from_preset(kind, preset)
    of_model = {name: value for name, value in settings.items() if name in SHAPE}
    others = {name: value for name, value in settings.items() if name in own}
    model = dataclasses.replace(plain.model, **of_model)
    return dataclasses.replace(plain, **others, model=model)

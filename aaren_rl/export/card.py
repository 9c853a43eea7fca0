"""The card of an exported file: making it, and checking it against an agent."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aaren_rl.agents import Agent
from aaren_rl.agents.base import WEIGHTS_FILE
from aaren_rl.agents.loading import checkpoint_folder
from aaren_rl.errors import UserError
from aaren_rl.export.steps import Step
from aaren_rl.files import read_json
from aaren_rl.runtime.card import Card, checksum
from aaren_rl.training.checkpoint import PROGRESS_FILE
from aaren_rl.training.run_folder import CONFIG_FILE

PACKAGES = ("aaren-rl", "torch", "onnx", "onnxruntime", "onnxscript", "numpy")


def make_card(
    agent: Agent,
    step: Step,
    file: Path,
    content: bytes,
    format: str,
    provenance: Mapping[str, Any] = MappingProxyType({}),
) -> Card:
    """The card of `content`, which is to be written to `file`; what was measured comes later."""
    spec = agent.spec
    space, seen, in_parts = spec.action_space, spec.observation_layout, spec.in_parts
    return Card(
        kind=format,
        file=file.name,
        bytes=len(content),
        sha256=checksum(content),
        precision="float32",
        agent=agent.name,
        inputs=step.inputs,
        outputs=step.outputs,
        state=step.state,
        reset_state=step.reset_state,
        observation_shape=seen.leaves[0].shape if seen.is_box else seen.shape,
        action_shape=spec.action_layout.shape if in_parts else tuple(space.shape or ()),
        action_dtype="float32" if in_parts else str(space.dtype),
        target_returns=spec.target_returns if agent.asks_return else (),
        max_episode_length=agent.horizon,
        provenance={**provenance, "agent": _saved(agent)},
        choices=spec.choices,
        observation_parts=None if seen.is_box else seen.to_json(),
        action_parts=spec.action_layout.to_json() if in_parts else None,
    )


def check_card(agent: Agent, card: Card, file: Path) -> None:
    """Check that an exported file can act in an agent's place.

    Args:
        agent: the agent.
        card: the file's card; an older one does not tell the spaces' bounds.
        file: the file, for the message.

    Raises:
        UserError: for another kind of agent, other spaces, or another condition.
    """
    spec, saved = agent.spec, card.provenance.get("agent", {})
    told, shape = (
        saved.get(name, {}) if isinstance(saved, dict) else {} for name in ("spec", "config")
    )
    other = shape.get("condition", "max-return") if isinstance(shape, dict) else "max-return"
    seen = spec.observation_layout
    actions: Any = (tuple(spec.action_space.shape or ()), str(spec.action_space.dtype))
    ours: dict[str, Any] = {
        "agent": agent.name,
        "observations": seen.leaves[0].shape if seen.is_box else seen.to_json(),
        "actions": spec.action_layout.to_json() if spec.in_parts else actions,
        "condition": "target"
        if agent.asks_return or not agent.has_memory
        else agent.config.condition,
    }
    theirs: dict[str, Any] = {
        "agent": card.agent,
        "observations": card.observation_parts or card.observation_shape,
        "actions": card.action_parts or (card.action_shape, card.action_dtype),
        "condition": "target" if card.asks_return or not card.state else other,
    }
    for name in ("observation_space", "action_space"):
        if isinstance(told, dict) and name in told:
            ours[name], theirs[name] = spec.to_json()[name], told[name]
    for name, own in ours.items():
        if theirs[name] != own:
            raise UserError(f"--exported {file}: its {name} is {theirs[name]}, the run's is {own}")


def _saved(agent: Agent) -> dict[str, Any]:
    return {"config": agent.config.to_json(), "spec": agent.spec.to_json()}


def provenance_of(agent: Agent, run: Path, checkpoint: str) -> dict[str, Any]:
    """Where an agent comes from: its run, data, updates and configuration, and who exported it.

    Args:
        agent: the agent.
        run: the training run, or the folder of a checkpoint.
        checkpoint: which of the run's checkpoints.
    """
    folder = checkpoint_folder(run, checkpoint)
    training = _optional(run / CONFIG_FILE)
    return {
        "run": str(run),
        "checkpoint": checkpoint,
        "dataset": agent.spec.dataset,
        "environment": agent.spec.environment,
        "update": _optional(folder / PROGRESS_FILE).get("update"),
        "seed": training.get("seed"),
        "training": training,
        "parameters": agent.num_parameters,
        "weights_sha256": checksum((folder / WEIGHTS_FILE).read_bytes()),
        "versions": {"python": platform.python_version(), **_versions()},
    }


def _optional(path: Path) -> dict[str, Any]:
    """A JSON object, or nothing where there is none: a folder may hold an agent alone."""
    try:
        content = read_json(path)
    except UserError:
        return {}
    return content if isinstance(content, dict) else {}


def _versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue
    return found

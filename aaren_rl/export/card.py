"""The card of an exported file: making it, and checking it against an agent."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from aaren_rl.agents import Agent, AgentSpec
from aaren_rl.agents.loading import checkpoint_folder
from aaren_rl.agents.spec import SPACES
from aaren_rl.errors import UserError
from aaren_rl.export.steps import Step
from aaren_rl.files import read_json, tensor_bytes
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
    """The card of `content`, which is to be written to `file`; measurements are added later."""
    spec, layout = agent.spec, agent.spec.observation_layout
    action_shape, action_dtype = _action_form(spec)
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
        observation_shape=layout.leaves[0].shape if layout.is_box else layout.shape,
        action_shape=action_shape,
        action_dtype=action_dtype,
        target_returns=spec.target_returns if agent.asks_return else (),
        max_episode_length=agent.horizon,
        provenance={**provenance, "agent": _saved(agent)},
        choices=spec.choices,
        observation_parts=None if layout.is_box else layout.to_json(),
        action_parts=spec.action_layout.to_json() if spec.in_parts else None,
    )


def check_card(agent: Agent, card: Card, file: Path) -> None:
    """Check that an exported file can act in an agent's place.

    Raises:
        UserError: for another format than ONNX, another kind of agent, other spaces, another
            condition, dataset (or task), or other weights, where the card tells their checksum.
    """
    if card.kind != "onnx":
        raise UserError(f"--exported {file}: is a {card.kind} export; --format onnx is needed")
    try:
        saved = card.provenance["agent"]
        theirs = _identity(card.agent, (card.action_shape, card.action_dtype), saved)
    except (LookupError, TypeError):
        raise UserError(f"--exported {file}: its card does not tell its agent's spaces") from None
    for name, own in _identity(agent.name, _action_form(agent.spec), _saved(agent)).items():
        if theirs[name] != own:
            raise UserError(f"--exported {file}: its {name} is {theirs[name]}, the run's is {own}")
    weights = card.provenance.get("weights_sha256")
    if weights not in (None, checksum(tensor_bytes(agent.state_dict()))):
        origin = " ".join(f"{key} {card.provenance.get(key)}" for key in ("run", "checkpoint"))
        raise UserError(
            f"--exported {file}: has other weights than the run's checkpoint; it was exported from "
            f"{origin}, update {card.provenance.get('update')}"
        )


def _identity(name: str, actions: tuple[Any, ...], saved: dict[str, Any]) -> dict[str, Any]:
    """The properties that must agree between a file and an agent; `saved` as `_saved` gives it."""
    spaces = {space: saved["spec"][space] for space in SPACES}
    condition, dataset = saved["config"]["condition"], saved["spec"]["dataset"]
    known = {"agent": name, "actions": actions, "condition": condition, "dataset": dataset}
    return {**known, **spaces}


def _saved(agent: Agent) -> dict[str, Any]:
    return {"config": agent.config.to_json(), "spec": agent.spec.to_json()}


def _action_form(spec: AgentSpec) -> tuple[tuple[int, ...], str]:
    """Shape and dtype of an action, or of its columns."""
    if spec.in_parts:
        return spec.action_layout.shape, "float32"
    return tuple(spec.action_space.shape or ()), str(spec.action_space.dtype)


def provenance_of(agent: Agent, run: Path, checkpoint: str) -> dict[str, Any]:
    """The origin of an agent; `run` is a training run, or the folder of a checkpoint."""
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
        "weights_sha256": checksum(tensor_bytes(agent.state_dict())),
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
        with suppress(PackageNotFoundError):
            found[name] = version(name)
    return found

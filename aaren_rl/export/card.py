"""Makes the card of an exported file."""

from __future__ import annotations

import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from aaren_rl.agents import TrajectoryAgent
from aaren_rl.agents.base import WEIGHTS_FILE
from aaren_rl.errors import UserError
from aaren_rl.evaluation.evaluating import checkpoint_folder
from aaren_rl.export.interface import Exportable, interface_of
from aaren_rl.files import read_json
from aaren_rl.runtime.card import Card, checksum

PACKAGES = ("aaren-rl", "torch", "onnx", "onnxruntime", "numpy")


def make_card(
    agent: Exportable,
    file: Path,
    content: bytes,
    *,
    kind: str,
    precision: str,
    provenance: dict[str, Any],
) -> Card:
    """The card of `content`, which is to be written to `file`; what was measured comes later."""
    interface = interface_of(agent)
    space = agent.spec.action_space
    remembers = isinstance(agent, TrajectoryAgent)
    learned = remembers and agent.config.timestep_embedding == "learned"
    return Card(
        kind=kind,
        file=file.name,
        bytes=len(content),
        sha256=checksum(content),
        precision=precision,
        agent=agent.name,
        inputs=interface.inputs,
        outputs=interface.outputs,
        state=interface.state,
        reset_state=interface.reset_state,
        observation_shape=tuple(agent.spec.observation_space.shape),
        action_shape=tuple(space.shape or ()),
        action_dtype=str(space.dtype),
        target_returns=agent.spec.target_returns if agent.asks_return else (),
        max_episode_length=agent.config.max_episode_length if learned else None,
        provenance=provenance,
    )


def provenance_of(agent: Exportable, run: Path, checkpoint: str) -> dict[str, Any]:
    """Where an agent comes from: its run, data, updates and configuration, and who exported it.

    Args:
        agent: the agent.
        run: the training run, or the folder of a checkpoint.
        checkpoint: which of the run's checkpoints.
    """
    folder = checkpoint_folder(run, checkpoint)
    training = _optional(run / "config.json")
    return {
        "run": str(run),
        "checkpoint": checkpoint,
        "dataset": agent.spec.dataset,
        "environment": agent.spec.environment,
        "update": _optional(folder / "training.json").get("update"),
        "seed": training.get("seed"),
        "training": training,
        "agent": {"config": agent.config.to_json(), "spec": agent.spec.to_json()},
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

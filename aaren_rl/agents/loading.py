"""From a name or a folder to an agent."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.agents import behavior_cloning, sequence_agents  # noqa: F401  (they register agents)
from aaren_rl.agents.base import CARD_FILE, FORMAT, WEIGHTS_FILE, Agent
from aaren_rl.agents.config import AgentConfig
from aaren_rl.agents.registration import AGENTS
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.errors import UserError, one_line
from aaren_rl.files import read_card, read_tensors, recover_folder
from aaren_rl.records import convert
from aaren_rl.registry import REGISTRIES, load_plugins
from aaren_rl.runtime.card import NOT_A_CARD

__all__ = ["AGENTS", "load_agent"]
LAST = "last"
"""Folder of a training run's last checkpoint."""


def check_plugins(plugins: dict[str, str]) -> None:
    """Raise `UserError` when a plug-in that a card names, `KIND NAME` to module, is not loaded."""
    for part, module in plugins.items():
        kind, _, name = part.rpartition(" ")
        if name not in REGISTRIES[kind]:
            raise UserError(
                f"the {kind} {name!r} comes from the plug-in {module}, which is not loaded; "
                f"install it or give --plugin {module}"
            )


def agent_class(name: str) -> type[Agent]:
    """The class of a registered name, or of `module:Class` if the module is imported.

    Raises:
        UserError: when it is not registered, or not imported.
    """
    module, _, path = name.partition(":")
    if not path:
        return AGENTS[name].make
    found: Any = sys.modules.get(module)
    for part in path.split("."):
        found = getattr(found, part, None)
    if found is None:
        raise UserError(
            f"agent {path} of {module} is not there: import {module}, or give --plugin {module}"
        )
    kind: type[Agent] = found
    return kind


def load_agent(folder: Path | str, device: str = "cpu", *, checkpoint: str = LAST) -> Agent:
    """Read a trained agent.

    >>> run = arl.train("aaren-rl/hopper-small-v0", out="runs/hopper", updates=2, env="none")
    >>> agent = arl.load_agent("runs/hopper")
    >>> policy = agent.policy(num_envs=2, target_return=3600.0)
    >>> policy.act(np.zeros((2, 11))).shape
    (2, 3)

    Args:
        folder: a run's folder; a checkpoint; or what `Agent.save` wrote.
        device: where to put it.
        checkpoint: which of a run's, `last` or `best`.

    Raises:
        UserError: when a file is missing, broken, of another format, or does not fit the card.
    """
    folder = checkpoint_folder(Path(folder), checkpoint)
    card_file = folder / CARD_FILE
    card = read_card(card_file)
    try:
        if card["format"] != FORMAT:
            raise UserError(f"format {card['format']}, this version reads {FORMAT}")
        load_plugins()
        check_plugins(card.get("plugins", {}))
        spec = AgentSpec.from_json(card["spec"])
        # Statistics that do nothing: the real ones come with the weights.
        mean, std = np.zeros(spec.observation_size), np.ones(spec.observation_size)
        config = AgentConfig.from_json(card["config"])
        agent = agent_class(convert(card["agent"], str, "agent"))(config, spec, mean, std)
    except UserError as error:
        raise UserError(f"{card_file}: {error}") from None
    except (*NOT_A_CARD, AssertionError) as error:
        raise UserError(f"{card_file}: not the card of an agent ({error!r})") from None
    load_weights(agent, folder)
    return agent.eval().to(device)


def checkpoint_folder(folder: Path, checkpoint: str = LAST) -> Path:
    """The folder of a run's checkpoint; `folder` may be such a folder, or a saved agent's, itself.

    Raises:
        UserError: when there is none.
    """
    if (folder / CARD_FILE).is_file() or (folder / WEIGHTS_FILE).is_file():
        return folder
    found = recover_folder(folder / checkpoint)
    if not found.is_dir():
        raise UserError(f"{folder}: not a training run: it has no {checkpoint}/ checkpoint")
    return found


def load_weights(agent: Agent, folder: Path) -> None:
    """Give an agent the weights that another one of its shape was saved with.

    Raises:
        UserError: for a file that is missing or broken, or weights that do not fit; names it.
    """
    file = folder / WEIGHTS_FILE
    weights = read_tensors(file)
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        raise UserError(f"{file}: does not fit the agent ({one_line(error)})") from None

"""From a name or a folder to an agent."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from aaren_rl.agents.base import CARD_FILE, FORMAT, WEIGHTS_FILE, Agent
from aaren_rl.agents.behavior_cloning import BehaviorCloning
from aaren_rl.agents.config import AgentConfig
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.agents.decision_aaren import DecisionAaren
from aaren_rl.agents.decision_transformer import DecisionTransformer
from aaren_rl.agents.recurrent_rivals import DecisionLSTM, DecisionMinGRU
from aaren_rl.errors import UserError
from aaren_rl.files import read_json, read_tensors

AGENTS: dict[str, type[Agent]] = {
    agent.name: agent
    for agent in (
        DecisionAaren,
        DecisionTransformer,
        DecisionLSTM,
        DecisionMinGRU,
        BehaviorCloning,
    )
}


def load_agent(folder: Path | str, device: str = "cpu") -> Agent:
    """Read an agent that `Agent.save` wrote.

    Args:
        folder: the folder that it was saved to.
        device: where to put it.

    Raises:
        UserError: when a file is missing, broken, of another format, or does not fit the card.
    """
    folder = Path(folder)
    card_file = folder / CARD_FILE
    card = read_json(card_file)
    try:
        if card["format"] != FORMAT:
            raise UserError(f"{card_file}: format {card['format']}, this version reads {FORMAT}")
        spec = AgentSpec.from_json(card["spec"])
        # Statistics that do nothing: the real ones come with the weights.
        mean, std = np.zeros(spec.observation_size), np.ones(spec.observation_size)
        config = AgentConfig.from_json(card["config"])
        agent = AGENTS[card["agent"]](config, spec, mean, std)
    except UserError:
        raise
    except (KeyError, TypeError, IndexError, ValueError) as error:
        raise UserError(f"{card_file}: not the card of an agent ({error!r})") from None
    weights = read_tensors(folder / WEIGHTS_FILE)
    try:
        agent.load_state_dict(weights)
    except RuntimeError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{folder / WEIGHTS_FILE}: does not fit {card_file} ({reason})") from None
    return agent.eval().to(device)

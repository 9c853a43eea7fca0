"""Agents: policies learned from trajectories."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.acting import Policy
    from aaren_rl.agents.base import Agent, Carry
    from aaren_rl.agents.behavior_cloning import BehaviorCloning
    from aaren_rl.agents.config import AgentConfig, Mode
    from aaren_rl.agents.decision import DecisionAgent
    from aaren_rl.agents.loading import AGENTS, load_agent
    from aaren_rl.agents.registration import register_agent
    from aaren_rl.agents.sequence_agents import (
        DecisionAaren,
        DecisionLSTM,
        DecisionMinGRU,
        DecisionTransformer,
    )
    from aaren_rl.agents.spec import AgentSpec

__all__ = [
    "AGENTS",
    "Agent",
    "AgentConfig",
    "AgentSpec",
    "BehaviorCloning",
    "Carry",
    "DecisionAaren",
    "DecisionAgent",
    "DecisionLSTM",
    "DecisionMinGRU",
    "DecisionTransformer",
    "Mode",
    "Policy",
    "load_agent",
    "register_agent",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

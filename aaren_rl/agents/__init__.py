"""Agents: policies learned from trajectories."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.acting import Policy
    from aaren_rl.agents.base import Agent, Carry
    from aaren_rl.agents.behavior_cloning import BehaviorCloning
    from aaren_rl.agents.config import AgentConfig, Mode
    from aaren_rl.agents.decision_aaren import DecisionAaren
    from aaren_rl.agents.decision_transformer import DecisionTransformer
    from aaren_rl.agents.loading import AGENTS, load_agent
    from aaren_rl.agents.recurrent_rivals import DecisionLSTM, DecisionMinGRU
    from aaren_rl.agents.spec import AgentSpec
    from aaren_rl.agents.trajectory_agent import TrajectoryAgent

__all__ = [
    "AGENTS",
    "Agent",
    "AgentConfig",
    "AgentSpec",
    "BehaviorCloning",
    "Carry",
    "DecisionAaren",
    "DecisionLSTM",
    "DecisionMinGRU",
    "DecisionTransformer",
    "Mode",
    "Policy",
    "TrajectoryAgent",
    "load_agent",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

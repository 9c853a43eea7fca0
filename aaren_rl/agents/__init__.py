"""Agents: policies learned from trajectories."""

from aaren_rl.agents.base import Agent, Carry, Mode, Policy
from aaren_rl.agents.behavior_cloning import BehaviorCloning
from aaren_rl.agents.config import AgentConfig, AgentSpec
from aaren_rl.agents.decision_aaren import DecisionAaren
from aaren_rl.agents.decision_transformer import DecisionTransformer
from aaren_rl.agents.loading import AGENTS, load_agent
from aaren_rl.agents.recurrent_rivals import DecisionLSTM, DecisionMinGRU
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

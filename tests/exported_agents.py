"""Agents with random weights for Hopper or for made-up spaces, and their exported files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, DecisionAaren
from aaren_rl.export.command import write_onnx
from aaren_rl.layers import AarenAttention

HOPPER_OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
HOPPER_ACTIONS = gym.spaces.Box(-1, 1, (3,), np.float32)
TARGET = 300.0


def make_agent(
    name: str = "decision-aaren",
    *,
    action_space: gym.spaces.Space[Any] = HOPPER_ACTIONS,
    observation_space: gym.spaces.Box = HOPPER_OBSERVATIONS,
    target_returns: tuple[float, ...] = (TARGET,),
    seed: int = 0,
    query: float = 3.0,
    **config: Any,
) -> Agent:
    """An agent whose every weight is random; its past matters to its actions.

    `query` is the size of Aaren's query tokens: above about 15 the scores are so large that the
    acting state has to carry their maximum.
    """
    torch.manual_seed(seed)
    small = {"width": 32, "layers": 2, "heads": 1, "context_length": 5}
    settings = {**small, "timestep_embedding": "learned", **config}
    spec = AgentSpec(
        observation_space,
        action_space,  # type: ignore[arg-type]
        returns_scale=100.0,
        returns_shift=30.0,
        target_returns=target_returns,
        environment="Hopper-v5",
        reference_scores=(-20.0, 3234.0),
        dataset="made-up",
    )
    size = spec.observation_size
    agent = AGENTS[name].make(
        AgentConfig(**settings), spec, np.linspace(-1, 1, size), np.linspace(0.5, 2, size)
    )
    for parameter in agent.parameters():
        nn.init.normal_(parameter, std=0.15)
    for module in agent.modules():
        if isinstance(module, AarenAttention):
            nn.init.normal_(module.query_token, std=query)
        if isinstance(module, nn.LayerNorm):
            nn.init.normal_(module.weight, mean=1.0, std=0.1)
    return agent.eval()


def make_aaren(**settings: Any) -> DecisionAaren:
    """`make_agent` with the type known."""
    agent = make_agent(**settings)
    assert isinstance(agent, DecisionAaren)
    return agent


def exported(agent: Agent, folder: Path, name: str = "step.onnx") -> Path:
    """The agent's ONNX file."""
    write_onnx(agent, folder / name)
    return folder / name

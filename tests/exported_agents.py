"""Agents with random weights for Hopper or for made-up spaces, and their exported files."""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn
from torch.onnx._internal.exporter._registration import ONNXRegistry

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, DecisionAaren
from aaren_rl.export.command import write_step
from aaren_rl.export.formats import ProgramPolicy
from aaren_rl.layers import AarenAttention
from aaren_rl.runtime.card import card_path

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
    environment: str | None = "Hopper-v5",
    **config: Any,
) -> Agent:
    """An agent whose every weight is random; its past matters to its actions.

    `query` is the size of Aaren's query tokens: above about 15 the scores are so large that the
    acting state has to carry their maximum.
    """
    torch.manual_seed(seed)
    small = {"width": 32, "layers": 1, "heads": 1, "context_length": 5}
    settings = {**small, "timestep_embedding": "learned", **config}
    spec = AgentSpec(
        observation_space,
        action_space,  # type: ignore[arg-type]
        returns_scale=100.0,
        returns_shift=30.0,
        target_returns=target_returns,
        environment=environment,
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


# `torch.onnx` lists onnxscript's operators anew at each export, a fifth of its time here.
ONNXRegistry.from_torchlib = staticmethod(functools.cache(ONNXRegistry.from_torchlib))

_FILES: dict[tuple[str, ...], tuple[bytes, str]] = {}


def program_policy(agent: Agent, folder: Path, target: float | None) -> ProgramPolicy:
    """One environment's policy of the agent's `torch.export` program."""
    return ProgramPolicy(exported(agent, folder, "step.pt2", "torch-export"), 1, target)


def exported(agent: Agent, folder: Path, name: str = "step.onnx", kind: str = "onnx") -> Path:
    """The agent's exported file; one that was exported before in this process is copied."""
    file = folder / name
    weights = b"".join(each.numpy().tobytes() for each in agent.state_dict().values())
    identity = agent.name, str(agent.config), str(agent.spec), hashlib.sha256(weights).hexdigest()
    key = (*identity, name, kind)
    if key not in _FILES:
        write_step(agent, file, kind)
        _FILES[key] = file.read_bytes(), card_path(file).read_text()
    content, card = _FILES[key]
    file.write_bytes(content)
    card_path(file).write_text(card)
    return file

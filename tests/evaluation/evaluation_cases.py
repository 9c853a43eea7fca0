"""Agents to act with and an environment that shows which episode it plays."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, Mode

ECHO, ECHO_LIMIT = "aaren-rl-tests/Echo-v0", 50


class Echo(gym.Env):  # type: ignore[type-arg]
    """Pays its seed at every step, for 1 + seed % 7 steps; must not be stepped beyond its end."""

    observation_space = gym.spaces.Box(-1, 1, (4,), np.float32)
    action_space = gym.spaces.Discrete(2)
    closed = itertools.count()
    seeds: list[int] = []  # noqa: RUF012  (of all episodes begun in this process)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        assert seed is not None
        self.seed, self.left = seed, 1 + seed % 7
        Echo.seeds.append(seed)
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.left > 0
        assert self.action_space.contains(action)
        self.left -= 1
        over = self.left == 0
        truncated = over and self.seed % 2 == 1
        return np.zeros(4, np.float32), float(self.seed), over and not truncated, truncated, {}

    def close(self) -> None:
        next(Echo.closed)


if ECHO not in gym.registry:
    gym.register(ECHO, Echo, max_episode_steps=ECHO_LIMIT)


def agent_for(
    environment: str,
    name: str = "decision-aaren",
    *,
    seed: int = 0,
    observation_space: Any = None,
    **config: Any,
) -> Agent:
    """An untrained agent with large weights, so that what it does depends on what it sees."""
    env = gym.make(environment)
    spec = AgentSpec(
        observation_space or env.observation_space,
        env.action_space,  # type: ignore[arg-type]
        returns_scale=100.0,
        target_returns=(200.0,),
        environment=environment,
    )
    env.close()
    small = {"width": 16, "layers": 1, "heads": 2, "context_length": 6}
    shape = {**small, "timestep_embedding": "learned", **config}
    agent = AGENTS[name].make(AgentConfig(**shape), spec)
    torch.manual_seed(seed)
    for parameter in agent.parameters():
        nn.init.normal_(parameter, std=0.4)
    return agent.eval()


def play_alone(
    agent: Agent, environment: str, seeds: list[int], target: float | None, mode: Mode | None
) -> tuple[list[float], list[int]]:
    """Returns and lengths by the plainest loop: one environment, one episode after the other."""
    env = gym.make(environment)
    returns, lengths = [], []
    for seed in seeds:
        policy = agent.policy(1, target, mode)
        observation, _ = env.reset(seed=seed)
        action = policy.act(observation[None])[0]
        total, length, over = 0.0, 0, False
        while not over:
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            length += 1
            over = terminated or truncated
            if not over:
                action = policy.act(observation[None], np.array([reward]))[0]
        returns.append(total)
        lengths.append(length)
    env.close()
    return returns, lengths

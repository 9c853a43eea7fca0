"""Small agents with all weights away from their start, and episodes to act through."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import nn

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, Mode
from aaren_rl.data import Batch

SEQUENCE_AGENTS = ("decision-aaren", "decision-transformer")
CONTEXT = 5
TARGET = 40.0

OBSERVATIONS = gym.spaces.Box(-np.inf, np.inf, (4,), np.float32)
CONTINUOUS = gym.spaces.Box(np.array([-2.0, -1.0], np.float32), np.array([2.0, 3.0], np.float32))
DISCRETE = gym.spaces.Discrete(5, start=3)
SPACES = {"continuous": CONTINUOUS, "discrete": DISCRETE}


def make_agent(
    name: str,
    action_space: gym.spaces.Space[Any] = CONTINUOUS,
    observation_space: gym.spaces.Space[Any] = OBSERVATIONS,
    target_returns: tuple[float, ...] = (TARGET,),
    seed: int = 0,
    **config: Any,
) -> Agent:
    """An agent of this name whose every weight is random, in evaluation mode."""
    torch.manual_seed(seed)
    small = {"width": 16, "layers": 2, "heads": 2, "context_length": CONTEXT}
    settings = {**small, "timestep_embedding": "learned", **config}
    spec = AgentSpec(
        observation_space,
        action_space,
        returns_scale=10.0,
        returns_shift=15.0,
        target_returns=target_returns,
    )
    size = spec.observation_size
    mean, std = np.linspace(-1, 1, size), np.linspace(0.5, 2, size)
    agent = AGENTS[name].make(AgentConfig(**settings), spec, mean, std)
    torch.manual_seed(seed)  # whatever its start has drawn
    for parameter in agent.parameters():
        nn.init.normal_(parameter, std=0.3)
    return agent.eval()


@dataclass
class Played:
    """What went in and came out at each step, `[steps, envs, ...]`; `starts` begin episodes.

    With the condition `max-return` the returns-to-go are those that the policy acted on.
    """

    observations: np.ndarray
    returns_to_go: np.ndarray
    timesteps: np.ndarray
    starts: np.ndarray
    actions: np.ndarray
    state_bytes: list[int]

    def batch(self, env: int, start: int, stop: int) -> Batch:
        """The steps `start` to `stop` of one environment, as one window."""
        rows = slice(start, stop)
        actions = np.stack([action[env] for action in self.actions[rows]])
        return Batch(
            observations=torch.from_numpy(self.observations[rows, env]).flatten(1)[None],
            actions=torch.from_numpy(actions)[None],
            returns_to_go=torch.from_numpy(self.returns_to_go[rows, env].astype(np.float32))[
                None, :, None
            ],
            timesteps=torch.from_numpy(self.timesteps[rows, env])[None],
            mask=torch.ones(1, stop - start, dtype=torch.bool),
        )

    def episodes(self, env: int) -> list[tuple[int, int]]:
        """First and one-past-last step of each episode of an environment."""
        first = np.flatnonzero(self.starts[:, env]).tolist()
        return list(zip(first, [*first[1:], len(self.starts)], strict=True))


def play(
    agent: Agent,
    mode: Mode | None,
    lengths: list[list[int]],
    *,
    targets: list[float] | None = None,
    seed: int = 1,
) -> Played:
    """Act on random observations and rewards, through episodes of these lengths.

    Args:
        lengths: for each environment the lengths of its episodes; all of the same sum.
    """
    rng = np.random.default_rng(seed)
    envs, steps = len(lengths), sum(lengths[0])
    assert {sum(each) for each in lengths} == {steps}
    asked = np.array(targets or [TARGET if agent.asks_return else 0.0] * envs)
    starts = np.zeros((steps + 1, envs), dtype=bool)
    for env, each in enumerate(lengths):
        starts[np.cumsum([0, *each]), env] = True
    shape = agent.spec.observation_space.shape
    observations = rng.normal(size=(steps, envs, *shape)).astype(np.float32)
    rewards = rng.normal(size=(steps, envs))
    returns_to_go, timesteps = np.zeros((steps, envs)), np.zeros((steps, envs), dtype=np.int64)
    for step in range(steps):
        going = ~starts[step]
        before = returns_to_go[step - 1] - rewards[step - 1]
        returns_to_go[step] = np.where(going, before, asked)
        timesteps[step] = np.where(going, timesteps[step - 1] + 1, 0)
    policy = agent.policy(envs, targets, mode)
    actions, sizes = [], []
    for step in range(steps):
        if step == 0:
            actions.append(policy.act(observations[0]))
        else:
            actions.append(policy.act(observations[step], rewards[step - 1], starts[step]))
        sizes.append(policy.state_bytes)
        if not agent.asks_return:
            returns_to_go[step] = policy.returns_to_go  # type: ignore[attr-defined]
    return Played(observations, returns_to_go, timesteps, starts[:steps], np.stack(actions), sizes)


@torch.no_grad()
def assert_same_actions(agent: Agent, batch: Batch, actions: np.ndarray, only: slice) -> None:
    """Compare actions `[steps, ..]` with what one parallel pass over the batch decides.

    Discrete actions may differ only where the two best logits are equal to float tolerance.
    """
    predictions = agent.predict(batch)[0, only]
    decided = agent.actions.decide(predictions).numpy()
    if not agent.spec.discrete:
        np.testing.assert_allclose(actions, decided, rtol=0, atol=2e-5)
        return
    logits = predictions.numpy()
    best = logits.max(axis=-1)
    taken = np.take_along_axis(logits, (actions - agent.actions.start)[:, None], axis=-1)[:, 0]
    assert (best - taken < 2e-5).all()
    assert (actions == decided).mean() > 0.99

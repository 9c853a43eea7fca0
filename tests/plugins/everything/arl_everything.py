"""One of each kind that a plug-in can register: mixer, agent, encoder, source, logger."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn

import aaren_rl as arl
from aaren_rl.agents import DecisionAaren
from aaren_rl.data import Batch
from aaren_rl.layers import HiddenState, LinearEncoder, RecurrentMixer
from aaren_rl.training import Logger, RunInfo


@dataclass(frozen=True)
class LeakyOptions:
    """Options of the mixer."""

    keep: float = 0.9
    """Share of the average that is kept at each token."""


class Leaky(RecurrentMixer):
    """A leaky average of the tokens and a linear map."""

    def __init__(self, width: int, keep: float = 0.9) -> None:
        super().__init__()
        self.keep, self.out = keep, nn.Linear(width, width)

    def mix(self, x: Tensor, state: HiddenState | None) -> tuple[Tensor, HiddenState]:
        average = torch.zeros_like(x[:, 0]) if state is None else state.vectors[:, 0]
        outputs = []
        for token in x.unbind(1):
            average = self.keep * average + (1 - self.keep) * token
            outputs.append(average)
        return self.out(torch.stack(outputs, 1)), HiddenState(average[:, None])


@dataclass(frozen=True)
class GaussianOptions:
    """Options of the agent."""

    spread: float = 0.5
    """Standard deviation at the start."""


class Gaussian(DecisionAaren):
    """Learns a mean and a standard deviation by maximum likelihood; acts by the mean."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        start = torch.full((self.spec.action_size,), self.options.spread)
        self.log_std = nn.Parameter(start.log())

    def loss(self, batch: Batch) -> Tensor:
        errors = (self.predict(batch) - self.actions.encode(batch.actions)) / self.log_std.exp()
        return (errors.square() / 2 + self.log_std)[batch.mask].mean()


@dataclass(frozen=True)
class GainOptions:
    """Options of the encoder."""

    gain: float = 1.0
    """Observations are multiplied by this."""


class Gain(LinearEncoder):
    """A linear map of squashed observations."""

    def __init__(self, space: gym.spaces.Box, width: int, gain: float = 1.0) -> None:
        super().__init__(space, width)
        self.gain = gain

    def forward(self, input: Tensor) -> Tensor:
        return super().forward(torch.tanh(self.gain * input))


def pendulum(name: str) -> arl.TrajectoryDataset | None:
    """The data source of `pendulum:EPISODES`: random actions for 20 steps an episode."""
    if not name.startswith("pendulum:"):
        return None
    env = gym.make("Pendulum-v1")
    env.action_space.seed(0)
    episodes = []
    for seed in range(int(name.removeprefix("pendulum:"))):
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        for _ in range(20):
            actions.append(env.action_space.sample())
            observation, reward, *_ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
        arrays = (np.stack(observations), np.stack(actions), np.array(rewards))
        fields = ("observations", "actions", "rewards")
        episodes.append({**dict(zip(fields, arrays, strict=True)), "truncated": True})
    return arl.TrajectoryDataset.from_episodes(episodes, name=name, env="Pendulum-v1")


class Lines(Logger):
    """Writes each call as a line of JSON."""

    def start(self, run: RunInfo) -> None:
        assert run.folder is not None
        self.file = run.folder / "lines.jsonl"

    def scalars(self, values: dict[str, float], step: int) -> None:
        with self.file.open("a") as file:
            print(json.dumps({"step": step, **values}), file=file)


arl.register_mixer("leaky", Leaky, options=LeakyOptions)
arl.register_agent("gaussian", Gaussian, options=GaussianOptions)
arl.register_encoder("gain", Gain, options=GainOptions)
arl.register_source("pendulum", pendulum)
arl.register_logger("lines", Lines)

"""Behavior cloning: an MLP from the observation to the action; the baseline that reviewers ask for.

Trained on the best episodes only (`top_percent` of the data) it is filtered behavior cloning, %BC.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.agents.base import Agent, Mode, Policy
from aaren_rl.agents.config import AgentConfig
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.agents.policy import as_observations
from aaren_rl.data.sampling import Batch


class BehaviorCloning(Agent):
    """`layers` hidden layers of `width` units. It has no memory and cannot be asked for a return."""

    name = "behavior-cloning"
    modes = ("carry",)  # how its one way of acting is called in tables

    def __init__(
        self,
        config: AgentConfig,
        spec: AgentSpec,
        observation_mean: np.ndarray | None = None,
        observation_std: np.ndarray | None = None,
    ) -> None:
        super().__init__(config, spec, observation_mean, observation_std)
        modules: list[nn.Module] = []
        size = spec.observation_size
        for _ in range(config.layers):
            activation = nn.ReLU() if config.activation == "relu" else nn.GELU(approximate="tanh")
            modules += [nn.Linear(size, config.width), activation, nn.Dropout(config.dropout)]
            size = config.width
        self.body = nn.Sequential(*modules)
        self.head = self.actions.head(size)

    def predict(self, batch: Batch) -> Tensor:
        """Predictions `[batch, time, action_size]`, each from its own observation."""
        return self._from_observations(batch.observations)

    def _from_observations(self, observations: Tensor) -> Tensor:
        out: Tensor = self.head(self.body(self.normalise(observations)))
        return out

    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
    ) -> Policy:
        """Start acting.

        Raises:
            UserError: for any mode or target return: there are none to choose from.
        """
        self.check_request(mode, target_return)
        self.eval()
        return _MemorylessPolicy(self, num_envs)


class _MemorylessPolicy(Policy):
    def __init__(self, agent: BehaviorCloning, num_envs: int) -> None:
        self._agent, self._num_envs = agent, num_envs

    @torch.inference_mode()
    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
    ) -> np.ndarray:
        seen = as_observations(observations, self._num_envs, self._agent)
        predictions = self._agent._from_observations(seen)
        return self._agent.actions.to_numpy(self._agent.actions.decide(predictions))

    @property
    def state_bytes(self) -> int:
        return 0

"""Behavior cloning: an MLP from the observation to the action, the standard baseline.

Trained on the best episodes only (`top_percent` of the data) it is filtered behavior cloning, %BC.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from aaren_rl.acting import check_starts
from aaren_rl.agents.base import Agent
from aaren_rl.agents.config import AgentConfig, Mode
from aaren_rl.agents.policy import AgentPolicy
from aaren_rl.agents.registration import register_agent
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.data.sampling import Batch
from aaren_rl.errors import UserError
from aaren_rl.layers import make_encoder
from aaren_rl.layers.sequence_model import make_activation


class BehaviorCloning(Agent):
    """`layers` hidden layers of `width` units. It has no memory and takes no target return."""

    modes = ("carry",)  # the name, in tables, of its only way of acting

    def __init__(
        self,
        config: AgentConfig,
        spec: AgentSpec,
        observation_mean: np.ndarray | None = None,
        observation_std: np.ndarray | None = None,
    ) -> None:
        super().__init__(config, spec, observation_mean, observation_std)
        space, width = spec.observation_space, config.width
        encoder = make_encoder(config.encoder, space, width, config.encoder_options)
        modules: list[nn.Module] = []
        for layer in [encoder, *(nn.Linear(width, width) for _ in range(config.layers - 1))]:
            modules += [layer, make_activation(config.activation), nn.Dropout(config.dropout)]
        self.body = nn.Sequential(*modules)
        self.head = self.actions.head(width)

    def predict(self, batch: Batch) -> Tensor:
        """Predictions `[batch, time, action_size]`, each from its own observation."""
        return self.predict_step(batch.observations, batch.tasks)

    def predict_step(self, observations: Tensor, tasks: Tensor | None = None) -> Tensor:
        """Predictions for raw observations `[..., observation_size]`; see `Agent.task_vector`."""
        encoder, *layers = self.body
        hidden = self.exactly(encoder, self.normalise(observations))
        added = self.task_vector(tasks)
        hidden = hidden if added is None else hidden + added
        for layer in layers:
            hidden = layer(hidden)
        out: Tensor = self.head(hidden)
        return out

    def _policy(
        self, num_envs: int, target_return: float | Sequence[float] | None, mode: Mode | None
    ) -> AgentPolicy:
        self.check_request(mode)
        try:
            self.check_request(target_return=target_return)
        except UserError as error:  # the command line refuses it; here every agent may be asked
            warnings.warn(f"{error} (it is ignored)", stacklevel=3)
        return MemorylessPolicy(self, np.zeros(num_envs))


register_agent("behavior-cloning", BehaviorCloning)


class MemorylessPolicy(AgentPolicy):
    """Acting on the newest observation alone."""

    def __init__(self, agent: BehaviorCloning, targets: np.ndarray) -> None:
        super().__init__(agent, targets)
        self._agent = agent

    def _update(self, observations: object, rewards: object, dones: object) -> np.ndarray | None:
        self._inputs.set_observations(observations)
        if dones is None or self._execute == 1:  # rewards and ends of episodes mean nothing here
            return None
        return check_starts(dones, len(self._place))

    def _act(
        self, observations: Tensor, starts: np.ndarray | None, executed: Tensor | None
    ) -> Tensor:
        return self._chosen(self._agent.predict_step(observations))

    @property
    def state_bytes(self) -> int:
        """0, or the bytes of the chunk that is executed."""
        return self.plan_bytes

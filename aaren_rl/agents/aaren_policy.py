"""Acting with `AarenStep`: few operations, and inputs that always lie in the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aaren_rl.acting import Policy, StepInputs
from aaren_rl.agents.actions import DiscreteActions

if TYPE_CHECKING:
    from aaren_rl.agents.aaren_step import AarenStep
    from aaren_rl.agents.decision_aaren import DecisionAaren


class AarenPolicy(Policy):
    """One forward pass of three tokens (a_{t-1}, R_t, s_t) a step, the state carried between.

    Args:
        agent: the agent.
        step: its step.
        targets: returns to ask for, float64 `[num_envs]`.
        restart_every: start the state afresh every so many steps; `None` carries it to the end.
        run: what to call in `step`'s place, such as `torch.compile(step)`; only without
            `restart_every`.
    """

    def __init__(
        self,
        agent: DecisionAaren,
        step: AarenStep,
        targets: np.ndarray,
        restart_every: int | None = None,
        run: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        self._codec, self._step, self._restart_every = agent.actions, step, restart_every
        self._run = run
        learned = agent.config.timestep_embedding == "learned"
        self._inputs = StepInputs(
            agent.spec.observation_space.shape,
            targets,
            agent.config.max_episode_length if learned else None,
        )
        self._device = agent.observation_mean.device
        names = ("observation", "reward", "reset", "target_return")
        # On the CPU these share the arrays' memory.
        self._given = [torch.from_numpy(getattr(self._inputs, name)) for name in names]
        size = len(targets)
        if isinstance(agent.actions, DiscreteActions):
            action = torch.full((size, 1), agent.actions.start)
        else:
            action = torch.zeros(size, agent.spec.action_size)
        self._timesteps = np.zeros((size, 1), dtype=np.int64)
        carried = (action, torch.zeros(size, 1, dtype=torch.float64), torch.zeros(size, 1).long())
        # Action, return-to-go, timestep, and a tensor a layer.
        self._state = (*(each.to(self._device) for each in carried), *step.empty_state(size))

    @property
    def state_bytes(self) -> int:
        """Model state, previous action, timestep and return-to-go."""
        return sum(each.nbytes for each in self._state)

    @torch.inference_mode()
    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
    ) -> np.ndarray:
        """See `Policy.act`."""
        self._inputs.take(observations, rewards, dones, self._timesteps)
        given = self._given
        if self._device.type != "cpu":
            given = [each.to(self._device) for each in given]
        observation, reward, reset, target = given
        action, returns, timestep, *state = self._state
        if self._run is not None:
            outcome = self._run(observation, reward, action, reset, target, *self._state[1:])
            self._state = tuple(outcome)
        else:
            returns, time = self._step.advance(reward, reset, target, returns, timestep)
            if self._restart_every is not None:
                reset = reset | (time % self._restart_every == 0)
            action, new = self._step.decide(observation, returns, action, time, reset, tuple(state))
            self._state = (action, returns, time + 1, *new)
        self._timesteps = self._state[2].cpu().numpy()
        self._inputs.taken()
        action = self._state[0]
        return self._codec.to_numpy(action[:, 0] if action.dtype == torch.int64 else action)

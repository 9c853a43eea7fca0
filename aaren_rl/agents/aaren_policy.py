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
    """One call of the agent's `AarenStep` a step, the state carried between.

    Args:
        agent: the agent.
        step: its step.
        targets: returns to ask for, float64 `[num_envs]`; not looked at with `max-return`.
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
        # On the CPU these share the arrays' memory.
        arrays = self._inputs.observation, self._inputs.reward
        self._given = tuple(torch.from_numpy(array) for array in arrays)
        size = len(targets)
        if isinstance(agent.actions, DiscreteActions):
            action = torch.full((size, 1), agent.actions.start)
        else:
            action = torch.zeros(size, agent.spec.action_size)
        self._timesteps = np.zeros((size, 1), dtype=np.int64)
        self._begin = tuple(
            each.to(self._device)
            for each in (
                action,
                torch.from_numpy(targets[:, None].astype(np.float64)),
                torch.zeros(size, 1, dtype=torch.int64),
                *step.empty_state(size),
            )
        )
        # Action, return-to-go, timestep, and the layers' tensors.
        self._state = self._begin

    @property
    def returns_to_go(self) -> np.ndarray:
        """The return-to-go that each environment's last action was taken on, `[num_envs]`."""
        array: np.ndarray = self._state[1][:, 0].cpu().numpy().copy()
        return array

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
        starts = self._inputs.take(observations, rewards, dones, self._timesteps)
        observation, reward = (each.to(self._device) for each in self._given)
        state, first = self._state, None
        if starts is not None:
            first = torch.from_numpy(starts[:, None]).to(self._device)
            state = _where(first, self._begin, state)
        if self._run is not None:
            self._state = tuple(self._run(observation, reward, *state))
        else:
            self._state = self._act(observation, reward, first, state)
        self._timesteps = self._state[2].cpu().numpy()
        self._inputs.taken()
        action = self._state[0]
        return self._codec.to_numpy(action[:, 0] if action.dtype == torch.int64 else action)

    def _act(
        self, observation: Tensor, reward: Tensor, first: Tensor | None, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """The state after the step."""
        action, returns, timestep, *layers = state
        if self._restart_every is not None:
            due = timestep % self._restart_every == 0
            first = due if first is None else first | due
            layers = list(_where(first, self._begin[3:], tuple(layers)))
        returns = returns - reward
        action, returns, new = self._step.decide(
            observation, returns, action, timestep, first, tuple(layers)
        )
        return (action, returns, timestep + 1, *new)


def _where(
    rows: Tensor, these: tuple[Tensor, ...], others: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """In the environments where `rows` (`[batch, 1]`, bool) is true the first, else the second."""
    return tuple(
        torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)
        for one, other in zip(these, others, strict=True)
    )

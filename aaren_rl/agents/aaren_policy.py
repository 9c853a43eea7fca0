"""Acting with `AarenStep`: few operations, and inputs that always lie in the same place."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aaren_rl.agents.policy import AgentPolicy
from aaren_rl.agents.step_parts import as_column

if TYPE_CHECKING:
    from aaren_rl.agents.aaren_step import AarenStep
    from aaren_rl.agents.decision import DecisionAgent


class AarenPolicy(AgentPolicy):
    """One call of the agent's `AarenStep` a step, the state carried between.

    Args:
        agent: the agent.
        step: its step.
        targets: returns to ask for, float64 `[num_envs]`; not looked at with `max-return`.
        restart_every: start the state afresh every so many steps; `None` carries it to the end.
        run: what to call in `step`'s place, such as `torch.compile(step)`; only without
            `restart_every` and draws.
    """

    def __init__(
        self,
        agent: DecisionAgent,
        step: AarenStep,
        targets: np.ndarray,
        restart_every: int | None = None,
        run: Callable[..., tuple[Tensor, ...]] | None = None,
    ) -> None:
        super().__init__(agent, targets)
        self._step, self._restart_every, self._run = step, restart_every, run
        size = len(targets)
        action = agent.actions.blank(size).reshape(size, -1)
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

    def _act(
        self, observations: Tensor, starts: np.ndarray | None, executed: Tensor | None
    ) -> Tensor:
        state, first = self._state, None
        if executed is not None:
            state = (executed.view_as(state[0]), *state[1:])
        if starts is not None:
            first = torch.from_numpy(starts[:, None]).to(self._device)
            state = _where(first, self._begin, state)
        reward = self._reward.to(self._device)
        if self._run is not None:
            self._state = tuple(self._run(observations, reward, *state))
        else:
            self._state = self._decide(observations, reward, first, state)
        self._timesteps = self._state[2].cpu().numpy()
        action = self._state[0]
        return action[:, 0] if action.dtype == torch.int64 else action

    def _decide(
        self, observation: Tensor, reward: Tensor, first: Tensor | None, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, ...]:
        """As `AarenStep.forward`, with restarts, and without looking for starts where none are."""
        action, returns, timestep, *layers = state
        if self._restart_every is not None:
            due = timestep % self._restart_every == 0
            first = due if first is None else first | due
            layers = list(_where(first, self._begin[3:], tuple(layers)))
        predictions, returns, new = self._step.predict(
            observation, returns - reward, action, timestep, first, tuple(layers)
        )
        return (as_column(self._chosen(predictions)), returns, timestep + 1, *new)


def _where(
    rows: Tensor, these: tuple[Tensor, ...], others: tuple[Tensor, ...]
) -> tuple[Tensor, ...]:
    """In the environments where `rows` (`[batch, 1]`, bool) is true the first, else the second."""
    return tuple(
        torch.where(rows.view(-1, *[1] * (one.dim() - 1)), one, other)
        for one, other in zip(these, others, strict=True)
    )

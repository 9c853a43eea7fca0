"""Acting in mode `window`: at every step the last steps run through the sequence model again."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from aaren_rl.agents.policy import NEWEST, HistoryPolicy

if TYPE_CHECKING:
    from aaren_rl.agents.decision import DecisionAgent


class WindowPolicy(HistoryPolicy):
    """Recompute the last `context_length` steps at every step, as Decision Transformer code does.

    With the condition `max-return` the window holds the returns on which the past actions were
    taken. Arguments as in `AgentPolicy`.
    """

    def __init__(self, agent: DecisionAgent, targets: np.ndarray) -> None:
        super().__init__(agent, targets)
        self._length = agent.config.context_length
        # The newest step stands last; unused places, at the left, are masked out.
        self._buffers = tuple(each.to(self._device) for each in self._blank(len(targets)))

    def _blank(self, size: int) -> tuple[Tensor, ...]:
        """The window's buffers, each `[size, places, ...]`."""
        return (
            torch.zeros(size, self._length, 1),
            torch.zeros(size, self._length, self._spec.observation_size),
            self._agent.actions.blank(size, self._length),
            torch.zeros(size, self._length, dtype=torch.int64),
        )

    @property
    def state_bytes(self) -> int:
        """The window's buffers, timestep and return-to-go."""
        return sum(buffer.nbytes for buffer in self._buffers) + super().state_bytes

    def _decide(
        self,
        returns: Tensor,
        observations: Tensor,
        timesteps: Tensor,
        starts: np.ndarray | None,
        executed: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        returns_to_go, _, actions, _ = self._buffers
        if executed is not None:
            actions[:, -1] = executed
        # The newest action is not known yet: its place holds the oldest one, and is not read.
        newest = (returns, observations, actions[:, 0].clone(), timesteps)
        for buffer, value in zip(self._buffers, newest, strict=True):
            _append(buffer, value[:, None])
        predictions, predicted = self._recompute(*newest)
        actions[:, -1] = decided = self._chosen(predictions)
        if predicted is not None:
            returns_to_go[:, -1] = predicted
        return decided, predicted

    def _tokens(self, steps: int, unknown: int) -> Tensor:
        """The tokens of the last steps, without the newest step's last `unknown`."""
        tokens = self._agent.embed(*(buffer[:, -steps:] for buffer in self._buffers))
        return tokens[:, :-unknown]

    def _recompute(
        self, returns: Tensor, observations: Tensor, actions: Tensor, timesteps: Tensor
    ) -> tuple[Tensor, Tensor | None]:
        """Predictions for the newest step, and its return where that is predicted."""
        agent, predicted = self._agent, None
        lengths = (timesteps + 1).clamp(max=self._length)
        longest = int(lengths.max())
        # The newest action is to be predicted, and with max-return the newest return before it.
        unknown = 2 if agent.predicts_return else 1
        tokens = self._tokens(longest, unknown)
        mask = None
        if bool((lengths < longest).any()):
            age = torch.arange(longest - 1, -1, -1, device=tokens.device)
            mask = age < lengths[:, None]
            mask = mask.repeat_interleave(agent.tokens_per_step, dim=1)[:, :-unknown]
        features, state = agent.read(tokens, mask=mask, read=NEWEST)
        if agent.predicts_return:
            predicted = agent.predict_return(features[:, -1])
            token = agent.embed_step(1, actions, predicted, observations, timesteps)
            features, _ = agent.read(token, state, read=NEWEST)
        return agent.head(features[:, -1]), predicted


class TokenWindowPolicy(WindowPolicy):
    """As `WindowPolicy`, but tokens are kept, so that each frame goes through its encoder once.

    For agents whose encoder costs more than their sequence model: with `nature` on frames of
    84 x 84 x 4 a step of the default Transformer takes 0.38 of the time, and its buffers 31 KB, not
    2.3 MB (one thread). The buffers hold the tokens of the last steps, in the order in which a step
    of acting reads them (a_{t-1}, R_t, s_t), and the last action.
    """

    def _blank(self, size: int) -> tuple[Tensor, ...]:
        places = self._agent.tokens_per_step * self._length
        tokens = torch.zeros(size, places, self._agent.config.width)
        return tokens, self._agent.actions.blank(size, 1)

    def _decide(
        self,
        returns: Tensor,
        observations: Tensor,
        timesteps: Tensor,
        starts: np.ndarray | None,
        executed: Tensor | None,
    ) -> tuple[Tensor, Tensor | None]:
        agent, (tokens, last) = self._agent, self._buffers
        previous = last[:, 0] if executed is None else executed
        _append(tokens, agent.embed_step(0, previous, returns, observations, timesteps))
        predictions, predicted = self._recompute(returns, observations, previous, timesteps)
        if predicted is not None:
            _append(tokens, agent.embed_step(1, previous, predicted, observations, timesteps))
        last[:, 0] = decided = self._chosen(predictions)
        return decided, predicted

    def _tokens(self, steps: int, unknown: int) -> Tensor:
        return self._buffers[0][:, -(self._agent.tokens_per_step * steps - unknown) :]


def _append(buffer: Tensor, new: Tensor) -> None:
    """Append `[num_envs, places, ...]` to a buffer, in place; as many of the oldest places go."""
    buffer.copy_(torch.cat([buffer, new], dim=1)[:, new.shape[1] :])

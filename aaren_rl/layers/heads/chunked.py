"""Action chunking: the next actions are predicted together, and several of them executed."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.layers.heads.base import ActionHead
from aaren_rl.layers.heads.joined import SideBySide


class ChunkedActions(ActionHead):
    """Predicts the actions of a step and of those that follow, each by a layer of its own.

    All else is as in the head that is given, of the first action: what is embedded, decided,
    drawn and exported.

    Args:
        each: the head of one action.
        length: actions in a prediction, at least 2.
    """

    def __init__(self, each: ActionHead, length: int) -> None:
        super().__init__(each.space)
        self.each, self.length = each, length
        self.size, self.bounded, self.samples = each.size, each.bounded, each.samples

    @property
    def outputs(self) -> int:
        """Of all actions of a chunk, one after the other."""
        return self.length * self.each.outputs

    @property
    def single(self) -> ActionHead:
        """The head of one action."""
        return self.each

    def chunk(self, predictions: Tensor) -> tuple[Tensor, ...]:
        """Predictions `[..., outputs]` of each action of the chunk."""
        return predictions.split(self.each.outputs, dim=-1)

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """See `ActionHead.standardise`."""
        self.each.standardise(mean, std)

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them, one a step, to tokens `[..., width]`."""
        return self.each.embedding(width)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to predictions `[..., outputs]`."""
        return SideBySide([self.each.head(width) for _ in range(self.length)])

    def encode(self, actions: Tensor) -> Tensor:
        """See `ActionHead.encode`."""
        return self.each.encode(actions)

    def decide(self, predictions: Tensor) -> Tensor:
        """The first action."""
        return self.each.decide(self.chunk(predictions)[0])

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `ActionHead.sample`, of the first action."""
        return self.each.sample(self.chunk(predictions)[0], temperature, generator)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Of each row as one episode; see `batch_loss`."""
        return self._loss(predictions, actions, mask, torch.arange(mask.shape[1]).to(mask.device))

    def batch_loss(self, predictions: Tensor, batch: Any) -> Tensor:
        """The mean over all actions of chunks that are in the batch and in the same episode.

        What lies beyond an episode's end, or beyond its slice, is not learned from.
        """
        return self._loss(predictions, batch.actions, batch.mask, batch.timesteps)

    def _loss(
        self, predictions: Tensor, actions: Tensor, mask: Tensor, timesteps: Tensor
    ) -> Tensor:
        """See `batch_loss`; `timesteps` `[batch, time]` or `[time]` tell episodes apart."""
        total = count = torch.zeros((), device=mask.device)
        for ahead, own in enumerate(self.chunk(predictions)[: mask.shape[1]]):
            steps = mask.shape[1] - ahead
            together = timesteps[..., ahead:] - timesteps[..., :steps] == ahead
            known = mask[:, :steps] & mask[:, ahead:] & together
            loss = self.each.loss(own[:, :steps], actions[:, ahead:], known)
            total, count = total + loss * known.sum(), count + known.sum()
        return total / count.clamp(min=1)

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """See `ActionHead.error`, of the first action."""
        return self.each.error(self.chunk(predictions)[0], actions)

    def to_numpy(self, actions: Tensor) -> Any:
        """See `ActionHead.to_numpy`."""
        return self.each.to_numpy(actions)

    def blank(self, *shape: int) -> Tensor:
        """See `ActionHead.blank`."""
        return self.each.blank(*shape)

    def logged(self) -> dict[str, float]:
        """See `ActionHead.logged`."""
        return self.each.logged()

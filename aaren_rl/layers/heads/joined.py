"""Heads of several choices, of several parts, and of chunks of actions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import groupby
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.layers.choices import ChoiceTables, Summed
from aaren_rl.layers.heads.base import ActionHead, draw, masked_mean, register_head
from aaren_rl.layers.heads.plain import ContinuousActions
from aaren_rl.layout import Layout, Leaf


class ChoiceActions(ActionHead):
    """Several choices (MultiDiscrete, MultiBinary), each predicted by logits of its own.

    Args:
        leaf: the part; its columns hold the choices, counted from 0.
    """

    samples = True

    def __init__(self, leaf: Leaf) -> None:
        super().__init__(leaf.space)
        self.levels, self.size = leaf.levels, leaf.size
        # Adjacent choices with equally many levels are computed together: (levels, count).
        self.runs = [(level, len(list(same))) for level, same in groupby(self.levels)]

    @property
    def outputs(self) -> int:
        """A logit for each level of each choice."""
        return sum(self.levels)

    def embedding(self, width: int) -> nn.Module:
        """Choices `[..., size]` to tokens `[..., width]`."""
        return ChoiceTables(self.levels, width)

    def encode(self, actions: Tensor) -> Tensor:
        """The columns as they are."""
        return actions

    def _logits(self, predictions: Tensor) -> list[Tensor]:
        """Logits `[..., choices, levels]` of each run."""
        sizes = [level * count for level, count in self.runs]
        parts = predictions.float().split(sizes, dim=-1)
        return [
            part.unflatten(-1, (count, level))
            for part, (level, count) in zip(parts, self.runs, strict=True)
        ]

    def decide(self, predictions: Tensor) -> Tensor:
        """The most likely choices, float32 `[..., size]`."""
        return torch.cat([each.argmax(-1) for each in self._logits(predictions)], -1).float()

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `ActionHead.sample`; each choice by itself."""
        drawn = [draw(each, temperature, generator) for each in self._logits(predictions)]
        return torch.cat(drawn, -1).float()

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean over the steps of the sum of the choices' cross-entropies (nats)."""
        errors = torch.zeros_like(mask, dtype=torch.float32)
        chosen = actions.long().split([count for _, count in self.runs], dim=-1)
        for logits, wanted in zip(self._logits(predictions), chosen, strict=True):
            likely = logits.log_softmax(-1).gather(-1, wanted[..., None])
            errors = errors - likely.sum((-1, -2))
        return masked_mean(errors, mask)

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """The share of choices that would be others."""
        return (self.decide(predictions) != actions).float().mean(-1)


class JoinedActions(ActionHead):
    """Dict, Tuple, MultiDiscrete and MultiBinary actions: a head for each part.

    Actions are columns `[..., size]`, float32, see `aaren_rl.layout`. The parts' embeddings and
    losses are summed: cross-entropy for choices, and for numbers that of the head that `of_numbers`
    makes of a Box.
    """

    def __init__(
        self, space: Any, of_numbers: Callable[[Any], ActionHead] = ContinuousActions
    ) -> None:
        super().__init__(space)
        self.layout = Layout.of(space)
        self.size = self.layout.columns
        self.parts = nn.ModuleList(
            ChoiceActions(leaf) if leaf.levels else of_numbers(leaf.space)
            for leaf in self.layout.leaves
        )
        self.bounded = all(part.bounded for part in self.heads)
        self.samples = all(part.samples for part in self.heads)

    def unbound(self, wide: Sequence[bool]) -> None:
        """See `ActionHead.unbound`."""
        for part, own in zip(self.heads, wide, strict=True):
            part.unbound((own,))
        self.bounded = all(part.bounded for part in self.heads)

    @property
    def heads(self) -> list[ActionHead]:
        """`parts`, typed."""
        return list(self.parts)  # type: ignore[arg-type]

    @property
    def outputs(self) -> int:
        """Of all parts."""
        return sum(part.outputs for part in self.heads)

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """See `ActionHead.standardise`; parts that are bounded leave theirs alone."""
        for part, columns in zip(self.heads, self.layout.slices, strict=True):
            if not part.bounded:
                part.standardise(mean[columns], std[columns])

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return Summed([part.embedding(width) for part in self.heads], self.layout.sizes)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to predictions `[..., outputs]`, part after part."""
        return SideBySide([part.head(width) for part in self.heads])

    def encode(self, actions: Tensor) -> Tensor:
        """Columns to columns, each part by its own head."""
        columns = actions.split(self.layout.sizes, dim=-1)
        pairs = zip(self.heads, columns, strict=True)
        return torch.cat([part.encode(own) for part, own in pairs], dim=-1)

    def decide(self, predictions: Tensor) -> Tensor:
        """Predictions `[..., outputs]` to columns, float32 `[..., size]`."""
        pairs = zip(self.heads, self._split(predictions), strict=True)
        return torch.cat([part.decide(own) for part, own in pairs], dim=-1)

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `ActionHead.sample`; the parts are drawn one after the other."""
        pairs = zip(self.heads, self._split(predictions), strict=True)
        return torch.cat([part.sample(own, temperature, generator) for part, own in pairs], dim=-1)

    def _split(self, predictions: Tensor) -> tuple[Tensor, ...]:
        return predictions.split([part.outputs for part in self.heads], dim=-1)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """The sum of the parts' losses."""
        columns = actions.split(self.layout.sizes, dim=-1)
        parts = zip(self.heads, self._split(predictions), columns, strict=True)
        losses = (part.loss(own, wanted, mask) for part, own, wanted in parts)
        return sum(losses, start=torch.zeros((), device=predictions.device))

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """The mean of the parts' errors."""
        columns = actions.split(self.layout.sizes, dim=-1)
        parts = zip(self.heads, self._split(predictions), columns, strict=True)
        return torch.stack([part.error(own, wanted) for part, own, wanted in parts]).mean(0)

    def logged(self) -> dict[str, float]:
        """See `ActionHead.logged`; the names end in the part's."""
        pairs = zip(self.heads, self.layout.leaves, strict=True)
        return {
            f"{name}/{leaf.name}": value
            for part, leaf in pairs
            for name, value in part.logged().items()
        }

    def to_numpy(self, actions: Tensor) -> Any:
        """Columns as arrays, or dictionaries or tuples of them, in the parts' own dtypes."""
        return self.layout.unflatten(actions.cpu().numpy())


class SideBySide(nn.Module):
    """Several modules of the same input, their outputs side by side."""

    def __init__(self, modules: list[nn.Module]) -> None:
        super().__init__()
        self.parts = nn.ModuleList(modules)

    def forward(self, features: Tensor) -> Tensor:
        """`[..., width]` to `[..., all outputs]`."""
        return torch.cat([part(features) for part in self.parts], dim=-1)


class ChunkedActions(ActionHead):
    """Predicts `length` actions, of a step and of those that follow, each by a layer of its own.

    Embedding, decision, draws and export are those of the head `each`, for the first action.
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
        """See `ActionHead.embedding`: of one action a step."""
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
        timesteps = torch.arange(mask.shape[1], device=mask.device)
        return self._loss(predictions, actions, mask, timesteps)

    def batch_loss(self, predictions: Tensor, batch: Any) -> Tensor:
        """The mean over the actions of all chunks that are in the batch and the same episode."""
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


register_head("joined", JoinedActions)

"""The heads of a Box, by squared error, and of a Discrete space."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from aaren_rl.layers.heads.base import ActionHead, register_head


class ContinuousActions(ActionHead):
    """Box actions as `(action - middle) / reach`.

    Where all bounds are finite, these stretch the space to [-1, 1], and the network ends in tanh.
    Otherwise they are the data's mean and standard deviation (`standardise`; until then 0 and 1),
    and predictions are cut at the bounds that there are.
    """

    low: Tensor
    high: Tensor
    middle: Tensor
    reach: Tensor

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.size = math.prod(space.shape)
        self.bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        low, high = _float32_inside(space.low, np.inf), _float32_inside(space.high, -np.inf)
        self.register_buffer("low", low)
        self.register_buffer("high", high)
        self.whole = np.issubdtype(space.dtype, np.integer)
        self.plain = bool((low == -1).all() and (high == 1).all())  # there is nothing to scale
        middle, reach = torch.zeros(self.size), torch.ones(self.size)
        if self.bounded:
            middle, reach = (low + high) / 2, (high - low) / 2
            reach[reach == 0] = 1.0  # one value only: predictions are cut to it
        # Saved where they come from the data; otherwise they follow from the space.
        self.register_buffer("middle", middle, persistent=not self.bounded)
        self.register_buffer("reach", reach, persistent=not self.bounded)

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """See `ActionHead.standardise`."""
        assert not self.bounded
        for buffer, values in ((self.middle, mean), (self.reach, std)):
            buffer.copy_(torch.as_tensor(values, dtype=torch.float32))

    def _load_from_state_dict(
        self, state_dict: dict[str, Tensor], prefix: str, *arguments: Any
    ) -> None:
        """Agents from before the actions were standardised have neither mean nor deviation."""
        if not self.bounded:
            state_dict.setdefault(f"{prefix}middle", torch.zeros(self.size))
            state_dict.setdefault(f"{prefix}reach", torch.ones(self.size))
        super()._load_from_state_dict(state_dict, prefix, *arguments)

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Linear(self.size, width)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to predictions `[..., size]`."""
        linear = nn.Linear(width, self.size)
        return nn.Sequential(linear, nn.Tanh()) if self.bounded else nn.Sequential(linear)

    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers `[..., size]` to the network's."""
        return (actions - self.middle) / self.reach

    def decide(self, predictions: Tensor) -> Tensor:
        """Predictions `[..., size]` to the environment's numbers, inside the bounds.

        In a space of integers they are the nearest ones.
        """
        if self.plain:
            chosen = predictions.clamp(-1.0, 1.0)
        else:
            chosen = (predictions * self.reach + self.middle).clamp(self.low, self.high)
        return chosen.round() if self.whole else chosen

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the steps where `mask` is true, in the network's units."""
        errors = (predictions.float() - self.encode(actions)).square().mean(-1)
        return (errors * mask).sum() / mask.sum().clamp(min=1)

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """See `ActionHead.error`."""
        return (predictions - self.encode(actions)).square().mean(-1)


def _float32_inside(bound: np.ndarray, inwards: float) -> Tensor:
    """A bound in float32, `[size]`, rounded so that no number of a float64 space is outside."""
    exact = bound.ravel()
    rounded = exact.astype(np.float32)
    outside = rounded < exact if inwards > 0 else rounded > exact
    rounded[outside] = np.nextafter(rounded[outside], np.float32(inwards))
    return torch.from_numpy(rounded)


class DiscreteActions(ActionHead):
    """Discrete actions: an embedding in, logits out, the most likely one taken."""

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.size, self.start = int(space.n), int(space.start)

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Embedding(self.size, width)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to logits `[..., size]`."""
        return nn.Linear(width, self.size)

    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers `[...]` to indices from 0; padding may be no action at all."""
        return (actions - self.start).clamp(0, self.size - 1)

    def decide(self, predictions: Tensor) -> Tensor:
        """Logits `[..., size]` to the environment's numbers `[...]`."""
        return predictions.argmax(-1) + self.start

    def blank(self, *shape: int) -> Tensor:
        """The first choice, int64 `[*shape]`."""
        return torch.full(shape, self.start)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean cross-entropy (nats) over the steps where `mask` is true."""
        errors = cross_entropy(
            predictions.float().flatten(0, -2), self.encode(actions).flatten(), reduction="none"
        )
        return (errors * mask.flatten()).sum() / mask.sum().clamp(min=1)

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """1 where another action would be taken, else 0."""
        return (self.decide(predictions) != actions).float()


register_head("continuous", ContinuousActions)
register_head("discrete", DiscreteActions)

"""Between an environment's actions and what a network predicts."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy


class ContinuousActions(nn.Module):
    """Box actions. Where the box has bounds, networks see it stretched to [-1, 1] and end in tanh.

    A box without (finite) bounds is predicted as it is.
    """

    low: Tensor
    high: Tensor

    def __init__(self, space: gym.spaces.Box) -> None:
        super().__init__()
        self.space = space
        self.size = int(gym.spaces.flatdim(space))
        self.bounded = bool(np.isfinite(space.low).all() and np.isfinite(space.high).all())
        low, high = (space.low, space.high) if self.bounded else (-1.0, 1.0)
        for name, bound in (("low", low), ("high", high)):
            values = np.broadcast_to(np.asarray(bound, dtype=np.float32), space.shape).ravel()
            self.register_buffer(name, torch.from_numpy(values.copy()))

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Linear(self.size, width)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to predictions `[..., size]`."""
        linear = nn.Linear(width, self.size)
        return nn.Sequential(linear, nn.Tanh()) if self.bounded else nn.Sequential(linear)

    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers `[..., size]` to the network's."""
        return (actions - self.low) * (2 / (self.high - self.low)) - 1

    def decide(self, predictions: Tensor) -> Tensor:
        """Predictions `[..., size]` to the environment's numbers, inside the bounds."""
        actions = (predictions + 1) * ((self.high - self.low) / 2) + self.low
        return actions.clamp(self.low, self.high) if self.bounded else actions

    def to_numpy(self, actions: Tensor) -> np.ndarray:
        """Decided actions `[envs, size]` as the space's own shape and dtype."""
        array = actions.cpu().numpy().astype(self.space.dtype)
        return array.reshape(-1, *self.space.shape)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean squared error over the steps where `mask` is true, in the network's units."""
        errors = (predictions.float() - self.encode(actions)).square().mean(-1)
        return (errors * mask).sum() / mask.sum().clamp(min=1)


class DiscreteActions(nn.Module):
    """Discrete actions: an embedding in, logits out, the most likely one taken."""

    def __init__(self, space: gym.spaces.Discrete) -> None:
        super().__init__()
        self.space = space
        self.size, self.start = int(space.n), int(space.start)

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Embedding(self.size, width)

    def head(self, width: int) -> nn.Module:
        """Features `[..., width]` to logits `[..., size]`."""
        return nn.Linear(width, self.size)

    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers `[...]` to indices from 0."""
        return actions - self.start

    def decide(self, predictions: Tensor) -> Tensor:
        """Logits `[..., size]` to the environment's numbers `[...]`."""
        return predictions.argmax(-1) + self.start

    def to_numpy(self, actions: Tensor) -> np.ndarray:
        """Decided actions `[envs]` in the space's own dtype."""
        return actions.cpu().numpy().astype(self.space.dtype)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean cross-entropy (nats) over the steps where `mask` is true."""
        errors = cross_entropy(
            predictions.float().flatten(0, -2), self.encode(actions).flatten(), reduction="none"
        )
        return (errors * mask.flatten()).sum() / mask.sum().clamp(min=1)


ActionCodec = ContinuousActions | DiscreteActions


def action_codec(space: gym.spaces.Space) -> ActionCodec:
    """The codec for a Box or Discrete space."""
    if isinstance(space, gym.spaces.Discrete):
        return DiscreteActions(space)
    assert isinstance(space, gym.spaces.Box)
    return ContinuousActions(space)

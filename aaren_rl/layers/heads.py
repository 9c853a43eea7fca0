"""Action heads: how actions are embedded, what is predicted, the loss, and what is then done.

An action head is made as `make(space)`, where `space` is the action space (a Gymnasium Box or
Discrete), and is an `ActionHead`. `agent.actions` is the head; the layer that `head(width)` makes
is the agent's own `agent.head`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from aaren_rl.registry import Registry


class ActionHead(nn.Module, ABC):
    """Between an environment's actions and what a network predicts.

    Args:
        space: the action space.

    Attributes:
        size: numbers in one action, flattened; for discrete actions how many there are.
        bounded: whether the network's units follow from the space alone. Else they come from the
            data, by `standardise(mean, std)`.
    """

    bounded: bool = True
    size: int

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.space = space

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Take the data's mean and (positive) standard deviation, `[size]`; not when `bounded`."""
        raise NotImplementedError

    @abstractmethod
    def embedding(self, width: int) -> nn.Module:
        """A new layer from actions as `encode` gives them to tokens `[..., width]`."""

    @abstractmethod
    def head(self, width: int) -> nn.Module:
        """A new layer from features `[..., width]` to predictions."""

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers, `[..., size]` or discrete `[...]`, to the network's."""

    @abstractmethod
    def decide(self, predictions: Tensor) -> Tensor:
        """Predictions to the environment's numbers, inside the space."""

    @abstractmethod
    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean loss, a scalar, over the steps where `mask` is true.

        Args:
            predictions: what `head` gave for every step, `[batch, time, ...]`.
            actions: the environment's numbers, `[batch, time, size]` or `[batch, time]`.
            mask: bool `[batch, time]`.
        """

    def to_numpy(self, actions: Tensor) -> np.ndarray:
        """Decided actions `[envs, ...]` as the space's own shape and dtype."""
        array: np.ndarray = actions.cpu().numpy().astype(self.space.dtype)
        return array.reshape(-1, *(self.space.shape or ()))

    def blank(self, *shape: int) -> Tensor:
        """Raw actions for `[*shape]` steps, all one that is valid."""
        return torch.zeros(*shape, self.size)


M = TypeVar("M", bound=Callable[..., ActionHead])
HEADS: Registry[Callable[..., ActionHead]] = Registry("action head")


def register_head(name: str, make: M) -> M:
    """Add an action head, a subclass of `ActionHead`, as `register_mixer` adds a mixer.

    >>> from aaren_rl.layers import ContinuousActions
    >>> class AbsoluteError(ContinuousActions):
    ...     def loss(self, predictions, actions, mask):
    ...         return (predictions - self.encode(actions)).abs()[mask].mean()
    >>> _ = arl.register_head("absolute-error", AbsoluteError)
    >>> run = arl.train(
    ...     "aaren-rl/hopper-small-v0", head="absolute-error", env="none", updates=2
    ... )
    """
    HEADS.register(name, make)
    return make


def make_head(space: Any, name: str = "") -> ActionHead:
    """A new head.

    Args:
        space: a Box or Discrete.
        name: in `HEADS`; by the space when empty.

    Raises:
        UserError: for an unknown name.
    """
    return HEADS[name or ("discrete" if hasattr(space, "n") else "continuous")].make(space)


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


register_head("continuous", ContinuousActions)
register_head("discrete", DiscreteActions)

"""The heads of a Box, by squared error, and of a Discrete space."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from aaren_rl.errors import UserError
from aaren_rl.layers.heads.base import (
    ActionHead,
    EntropyConstraint,
    draw,
    masked_mean,
    register_head,
)


class ContinuousActions(ActionHead):
    """Box actions as `(action - middle) / reach`.

    Where all bounds are finite, these stretch the space to [-1, 1], and the network ends in tanh.
    Otherwise, and where the bounds are far wider than the data (`unbound`), they are the data's
    mean and standard deviation (`standardise`; until then 0 and 1), and predictions are clamped at
    the finite bounds.
    """

    serves = "continuous"
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
        self.plain = bool((low == -1).all() and (high == 1).all())  # no scaling
        middle, reach = torch.zeros(self.size), torch.ones(self.size)
        if self.bounded:
            middle, reach = low / 2 + high / 2, high / 2 - low / 2  # no sum overflows
            reach[reach == 0] = 1.0  # a single value, to which predictions are clamped
        self._scale_by(middle, reach)

    def _scale_by(self, middle: Tensor, reach: Tensor) -> None:
        """Saved where they come from the data; else they follow from the space."""
        self.register_buffer("middle", middle, persistent=not self.bounded)
        self.register_buffer("reach", reach, persistent=not self.bounded)

    def unbound(self, wide: Sequence[bool]) -> None:
        """See `ActionHead.unbound`."""
        if any(wide):
            self.bounded = self.plain = False
            self._scale_by(torch.zeros(self.size), torch.ones(self.size))

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """See `ActionHead.standardise`."""
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
        return masked_mean(errors, mask)


def _float32_inside(bound: np.ndarray, inwards: float) -> Tensor:
    """A bound in float32, `[size]`, rounded so that no number of a float64 space is outside."""
    exact = bound.ravel()
    rounded = exact.astype(np.float32)
    outside = rounded < exact if inwards > 0 else rounded > exact
    rounded[outside] = np.nextafter(rounded[outside], np.float32(inwards))
    return torch.from_numpy(rounded)


class DiscreteActions(ActionHead):
    """Discrete actions: an embedding in, logits out, the most likely one taken."""

    serves = "discrete"
    samples = True

    def __init__(self, space: Any) -> None:
        super().__init__(space)
        self.size, self.start = int(space.n), int(space.start)

    def embedding(self, width: int) -> nn.Module:
        """Actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Embedding(self.size, width)

    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers `[...]` to indices from 0; padding may be no action at all."""
        return (actions - self.start).clamp(0, self.size - 1)

    def decide(self, predictions: Tensor) -> Tensor:
        """Logits `[..., size]` to the environment's numbers `[...]`."""
        return predictions.argmax(-1) + self.start

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `ActionHead.sample`."""
        return draw(predictions, temperature, generator) + self.start

    def blank(self, *shape: int) -> Tensor:
        """The first choice, int64 `[*shape]`."""
        return torch.full(shape, self.start)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean cross-entropy (nats) over the steps where `mask` is true."""
        errors = cross_entropy(
            predictions.float().flatten(0, -2), self.encode(actions).flatten(), reduction="none"
        )
        return masked_mean(errors, mask.flatten())

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """1 where another action would be taken, else 0."""
        return (self.decide(predictions) != actions).float()


@dataclass(frozen=True)
class CategoricalOptions:
    """Options of the head `categorical`."""

    entropy_weight: float = 0.1
    """Start of the multiplier of the entropy, which is learned; positive. Without entropy in the
    loss the head is `discrete`."""
    target_entropy: float | None = None
    """Nats below which the entropy is not to fall; by default a tenth of a uniform choice's."""


class CategoricalActions(DiscreteActions):
    """As `DiscreteActions`, with an entropy that does not fall below a target.

    `settings` are fields of `CategoricalOptions`; `UserError` for one out of its range.
    """

    def __init__(self, space: Any, **settings: Any) -> None:
        super().__init__(space)
        options = CategoricalOptions(**settings)
        target, uniform = options.target_entropy, math.log(self.size)
        target = uniform / 10 if target is None else target
        if not 0 < options.entropy_weight < math.inf:
            raise UserError(
                "--head-options.entropy-weight must be positive and finite, got "
                f"{options.entropy_weight:g}"
            )
        if not 0 <= target <= uniform:
            raise UserError(
                f"--head-options.target-entropy must be in [0, {uniform:g}] for {self.size} "
                f"choices, got {target:g}"
            )
        self.constraint = EntropyConstraint(options.entropy_weight, target)

    def entropy(self, predictions: Tensor) -> Tensor:
        """Nats, `[...]`."""
        likely = predictions.float().log_softmax(-1)
        return -(likely.exp() * likely).sum(-1)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean cross-entropy (nats); in training less the weighted entropy."""
        loss = super().loss(predictions, actions, mask)
        if not self.training:
            return loss
        return loss + self.constraint(masked_mean(self.entropy(predictions), mask))

    def logged(self) -> dict[str, float]:
        """See `ActionHead.logged`."""
        return self.constraint.logged()


register_head("continuous", ContinuousActions)
register_head("squared-error", ContinuousActions)  # the same by what it minimises
register_head("discrete", DiscreteActions)
register_head("categorical", CategoricalActions, options=CategoricalOptions)

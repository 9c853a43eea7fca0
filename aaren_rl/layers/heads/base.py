"""Action heads: how actions are embedded and predicted, the loss, and the decision.

An action head is made as `make(space)`, where `space` is the action space, and is an `ActionHead`.
`agent.actions` is the head; the layer that `head(width)` makes is the agent's own `agent.head`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layout import Layout
from aaren_rl.registry import Registry

DUAL_SCALE = 1e-3


class ActionHead(nn.Module, ABC):
    """Conversion between an environment's actions and the network's inputs and predictions.

    Args:
        space: the action space.

    Attributes:
        size: numbers in one action, flattened; for Discrete actions how many there are.
        bounded: whether the network's units follow from the space alone. Else they come from the
            data, by `standardise(mean, std)`.
        samples: whether a distribution is predicted, so that actions can be drawn (`sample`).
        serves: `continuous` for a head of a Box (of a space with parts it serves those that are
            one), `discrete` for one of a Discrete space; empty for what the head itself checks.
    """

    bounded: bool = True
    samples: bool = False
    serves: ClassVar[str] = ""
    size: int

    def __init__(self, space: Any) -> None:
        super().__init__()
        self.space = space

    def standardise(self, mean: np.ndarray, std: np.ndarray) -> None:
        """Take the data's mean and (positive) standard deviation, `[size]`; not when `bounded`."""
        raise NotImplementedError

    def unbound(self, wide: Sequence[bool]) -> None:
        """Learn the parts of the space for which `wide` is true as if they had no bounds.

        Called before any layer is made. Decisions stay inside the bounds. By default nothing: a
        head that takes its units from elsewhere has no use for it.
        """

    def embedding(self, width: int) -> nn.Module:
        """A new layer from actions as `encode` gives them to tokens `[..., width]`."""
        return nn.Linear(self.size, width)

    def head(self, width: int) -> nn.Module:
        """A new layer from features `[..., width]` to predictions `[..., outputs]`."""
        return nn.Linear(width, self.outputs)

    @abstractmethod
    def encode(self, actions: Tensor) -> Tensor:
        """Environment's numbers, `[..., size]` or discrete `[...]`, to the network's."""

    @abstractmethod
    def decide(self, predictions: Tensor) -> Tensor:
        """Predictions to the environment's numbers, inside the space."""

    @abstractmethod
    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean loss, a scalar, over the steps where `mask` (bool `[batch, time]`) is true.

        `predictions` are `[batch, time, outputs]`, `actions` the environment's numbers,
        `[batch, time, size]` or `[batch, time]`.
        """

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw actions: predictions `[..., outputs]` to the environment's numbers, as `decide`.

        The temperature is positive: 1 draws from the learned distribution, less keeps closer to its
        middle. The generator is on the predictions' device.
        """
        raise NotImplementedError

    def batch_loss(self, predictions: Tensor, batch: Any) -> Tensor:
        """The loss of a batch (`aaren_rl.data.Batch`); by default `loss`."""
        return self.loss(predictions, batch.actions, batch.mask)

    def chunk(self, predictions: Tensor) -> tuple[Tensor, ...]:
        """Predictions of each action of a chunk, this step's first; of the only one without."""
        return (predictions,)

    @property
    def single(self) -> ActionHead:
        """The head of one action of a chunk; the head itself without one."""
        return self

    @property
    def outputs(self) -> int:
        """Numbers in one prediction."""
        return self.size

    def logged(self) -> dict[str, float]:
        """Metrics of the last batch by name, such as `entropy`, besides the loss."""
        return {}

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Distance of the decided from the data's actions, `[batch, time]`.

        By default the mean squared difference in the network's units.
        """
        decided = self.encode(self.decide(predictions))
        return (decided - self.encode(actions)).square().mean(-1)

    def to_numpy(self, actions: Tensor) -> Any:
        """Decided actions `[envs, ...]` as the environments take them, in their own dtype."""
        array: np.ndarray = actions.cpu().numpy().astype(self.space.dtype)
        return array.reshape(-1, *(self.space.shape or ()))

    def blank(self, *shape: int) -> Tensor:
        """A valid raw action for each of `[*shape]` steps."""
        return torch.zeros(*shape, self.size)


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Choices `[...]`, int64, drawn by `softmax(logits / temperature)` of `[..., choices]`."""
    logits = logits.float()
    # The maximum is subtracted first: no infinity at any temperature.
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature
    chosen = torch.multinomial(logits.softmax(-1).flatten(0, -2), 1, generator=generator)
    return chosen.view(logits.shape[:-1])


class EntropyConstraint(nn.Module):
    """Keeps a policy's entropy at or above a target, as Online Decision Transformer does.

    Zheng et al. 2022 (arXiv 2202.05607), equations 4 to 6: the likelihood is maximised subject to
    `entropy >= target`. The Lagrange multiplier rises while the entropy is below the target and
    falls towards 0 while it is above. It is a parameter: the optimiser that trains the agent moves
    it, and it is saved with the weights.

    Args:
        weight: the multiplier at the start, positive.
        target: nats.
    """

    def __init__(self, weight: float, target: float) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(math.log(weight)))
        self.target = target
        self.last: Tensor | None = None  # the last batch's entropy

    def forward(self, entropy: Tensor) -> Tensor:
        """The term of the loss, `-weight * entropy`, of a batch's mean entropy; both scalars.

        The multiplier's own term has the value 0 and the gradient `entropy - target`, scaled down:
        the norm by which all gradients are clipped must not depend on it, and Adam's steps do not
        depend on a gradient's scale.
        """
        self.last = entropy.detach()
        multiplier = DUAL_SCALE * self.log_weight * (self.last - self.target)
        return multiplier - multiplier.detach() - self.log_weight.detach().exp() * entropy

    def logged(self) -> dict[str, float]:
        """Entropy and multiplier by the names of their metrics; empty before the first batch."""
        if self.last is None:
            return {}
        return {
            "entropy": float(self.last),
            "entropy_weight": float(self.log_weight.detach().exp()),
        }


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `[batch, time]` over the steps where `mask` is true; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)


M = TypeVar("M", bound=Callable[..., ActionHead])
HEADS: Registry[Callable[..., ActionHead]] = Registry("action head")


def register_head(name: str, make: M, *, options: type | None = None) -> M:
    """Add an action head, a subclass of `ActionHead`, as `register_mixer` adds a mixer.

    >>> from aaren_rl.layers import ContinuousActions
    >>> class AbsoluteError(ContinuousActions):
    ...     def loss(self, predictions, actions, mask):
    ...         return (predictions - self.encode(actions)).abs()[mask].mean()
    >>> _ = arl.register_head("absolute-error", AbsoluteError)
    >>> run = arl.train(
    ...     "aaren-rl/hopper-small-v0", head="absolute-error", env="none", updates=2
    ... )

    It is made as `make(space, **options)`.
    """
    HEADS.register(name, make, options=options)
    return make


def head_name(space: Any) -> str:
    """The head of a space when none is named."""
    layout = Layout.of(space)
    if layout.is_box:
        return "continuous"
    leaf = layout.leaves[0]
    return "joined" if leaf.path or leaf.shape else "discrete"


def make_head(
    space: Any,
    name: str = "",
    options: Mapping[str, Any] = MappingProxyType({}),
    chunk: int = 1,
    wide: Sequence[bool] = (),
) -> ActionHead:
    """A new action head.

    Args:
        space: the action space.
        name: in `HEADS`; by the space when empty. A head of a Box serves the numbers of a Dict or
            Tuple space, beside choices.
        options: its settings, by name.
        chunk: actions that are predicted together.
        wide: see `ActionHead.unbound`; empty for no part.

    Raises:
        UserError: for an unknown name, option or kind of space, or a head of another space.
    """
    head = _make_head(space, name, options)
    if any(wide):
        head.unbound(wide)
    if chunk > 1:
        from aaren_rl.layers.heads.joined import ChunkedActions  # which imports this module

        return ChunkedActions(head, chunk)
    return head


def _make_head(space: Any, name: str, options: Mapping[str, Any]) -> ActionHead:
    usual = head_name(space)
    entry = HEADS[name or usual]
    settings = HEADS.options(name or usual, options)
    serves = getattr(entry.make, "serves", "")
    if serves in ("", usual):
        return entry.make(space, **settings)
    if serves == "continuous" and not all(leaf.levels for leaf in Layout.of(space).leaves):
        return HEADS["joined"].make(space, partial(entry.make, **settings))
    what = "numbers" if serves == "continuous" else "one choice"
    raise UserError(f"--head {name}: predicts {what}, which actions of {space} are not")

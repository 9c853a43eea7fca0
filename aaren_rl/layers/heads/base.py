"""Action heads: how actions are embedded, what is predicted, the loss, and what is then done.

An action head is made as `make(space)`, where `space` is the action space, and is an `ActionHead`.
`agent.actions` is the head; the layer that `head(width)` makes is the agent's own `agent.head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType
from typing import Any, ClassVar, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layout import Layout
from aaren_rl.registry import Registry


class ActionHead(nn.Module, ABC):
    """Between an environment's actions and what a network predicts.

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

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """Draw actions: predictions to the environment's numbers, as `decide`.

        Args:
            predictions: `[..., outputs]`.
            temperature: positive; 1 draws from the distribution as it was learned, less keeps
                closer to its middle, more goes further away.
            generator: where the random numbers come from; on the predictions' device.
        """
        raise NotImplementedError

    def batch_loss(self, predictions: Tensor, batch: Any) -> Tensor:
        """The loss of a batch (`aaren_rl.data.Batch`): `loss`, for most heads."""
        return self.loss(predictions, batch.actions, batch.mask)

    def chunk(self, predictions: Tensor) -> tuple[Tensor, ...]:
        """Predictions of this step's action, and of those of the next steps where there are any."""
        return (predictions,)

    @property
    def single(self) -> ActionHead:
        """What decides each of `chunk`: the head itself, for most."""
        return self

    @property
    def outputs(self) -> int:
        """Numbers in one prediction."""
        return self.size

    def logged(self) -> dict[str, float]:
        """Metrics of the last batch by name, such as `entropy`, besides the loss."""
        return {}

    def error(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """How far what is decided is from the data's actions: `[batch, time]`.

        Here the mean squared difference in the network's units.
        """
        decided = self.encode(self.decide(predictions))
        return (decided - self.encode(actions)).square().mean(-1)

    def to_numpy(self, actions: Tensor) -> Any:
        """Decided actions `[envs, ...]` as the environments take them, in their own dtype."""
        array: np.ndarray = actions.cpu().numpy().astype(self.space.dtype)
        return array.reshape(-1, *(self.space.shape or ()))

    def blank(self, *shape: int) -> Tensor:
        """Raw actions for `[*shape]` steps, all one that is valid."""
        return torch.zeros(*shape, self.size)


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

    Args:
        name: in lower case with hyphens.
        make: made as `make(space, **options)`.
        options: a dataclass of its settings, each with a default.
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
    space: Any, name: str = "", options: Mapping[str, Any] = MappingProxyType({}), chunk: int = 1
) -> ActionHead:
    """A new head.

    Args:
        space: the action space.
        name: in `HEADS`; by the space when empty. A head of a Box serves the numbers of a Dict or
            Tuple space, beside choices.
        options: its settings, by name.
        chunk: actions that are predicted together.

    Raises:
        UserError: for an unknown name or option, a space that no agent knows, or one that the head
            does not fit.
    """
    if chunk > 1:
        from aaren_rl.layers.heads.chunked import ChunkedActions  # is made of this module's parts

        return ChunkedActions(make_head(space, name, options), chunk)
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

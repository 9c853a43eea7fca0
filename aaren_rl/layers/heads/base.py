"""Action heads: how actions are embedded, what is predicted, the loss, and what is then done.

An action head is made as `make(space)`, where `space` is the action space, and is an `ActionHead`.
`agent.actions` is the head; the layer that `head(width)` makes is the agent's own `agent.head`.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

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

    @property
    def outputs(self) -> int:
        """Numbers in one prediction."""
        return self.size

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


def head_name(space: Any) -> str:
    """The head of a space when none is named."""
    layout = Layout.of(space)
    if layout.is_box:
        return "continuous"
    leaf = layout.leaves[0]
    return "joined" if leaf.path or leaf.shape else "discrete"


def make_head(space: Any, name: str = "") -> ActionHead:
    """A new head.

    Args:
        space: the action space.
        name: in `HEADS`; by the space when empty.

    Raises:
        UserError: for an unknown name, or a space that no agent knows.
    """
    return HEADS[name or head_name(space)].make(space)

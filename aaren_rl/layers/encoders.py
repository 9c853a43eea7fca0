"""Observation encoders: what makes a token of an observation.

An encoder is made as `make(space, width, **options)`, where `space` is the observation space (a
Gymnasium Box). Its `forward` takes observations `[..., size]`, float32, flattened and standardised
by the agent (raw with `--no-normalize-observations`), and returns `[..., width]`; an encoder of
images gives them their shape back with `observations.unflatten(-1, space.shape)`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from aaren_rl.registry import Registry

M = TypeVar("M", bound=Callable[..., nn.Module])
ENCODERS: Registry[Callable[..., nn.Module]] = Registry("encoder")


def register_encoder(name: str, make: M, *, options: type | None = None) -> M:
    """Add an encoder, for `AgentConfig.encoder` and `--encoder`.

    >>> from aaren_rl.layers import LinearEncoder
    >>> class Squashed(LinearEncoder):
    ...     def forward(self, observations):
    ...         return super().forward(observations.tanh())
    >>> _ = arl.register_encoder("squashed", Squashed)
    >>> run = arl.train("aaren-rl/hopper-small-v0", encoder="squashed", env="none", updates=2)

    Args:
        name: how it is called in configs and on the command line.
        make: its class; see the module's text.
        options: a dataclass whose fields are keyword arguments of `make`, each with a default.

    Returns:
        `make`.

    Raises:
        UserError: for a name that belongs to another encoder.
    """
    ENCODERS.register(name, make, options=options)
    return make


def make_encoder(name: str, space: Any, width: int, options: Mapping[str, Any]) -> nn.Module:
    """A new encoder.

    Raises:
        UserError: for an unknown encoder or option.
    """
    return ENCODERS[name].make(space, width, **ENCODERS.options(name, options))


class LinearEncoder(nn.Linear):
    """One linear map of all numbers, as in Decision Transformer."""

    def __init__(self, space: Any, width: int) -> None:
        super().__init__(math.prod(space.shape), width)


register_encoder("linear", LinearEncoder)

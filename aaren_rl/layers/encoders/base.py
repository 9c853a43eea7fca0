"""Observation encoders: from an observation to its token.

An encoder is made as `make(space, width, **options)`, where `space` is the observation space (a
Gymnasium Box). Its `forward` takes observations `[..., size]`, float32, flattened and standardised
by the agent (raw with `--no-normalize-observations`), and returns `[..., width]`; an encoder of
images gives them their shape back with `observations.unflatten(-1, space.shape)`. A class with
`images = True` is given uint8 images alone, as they are: numbers from 0 to 255, uint8 or float32.

Of an observation of several parts (Dict, Tuple) each part has an encoder of its own, and their
tokens are summed: tables for choices, the named encoder for Boxes. An encoder of images gets the
images alone, and the other Boxes have linear ones.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from torch import nn

from aaren_rl.errors import UserError
from aaren_rl.layers.choices import ChoiceTables, Summed
from aaren_rl.layout import Layout, Leaf
from aaren_rl.registry import Registry

M = TypeVar("M", bound=Callable[..., nn.Module])
ENCODERS: Registry[Callable[..., nn.Module]] = Registry("encoder")


def register_encoder(name: str, make: M, *, options: type | None = None) -> M:
    """Add an encoder, for `AgentConfig.encoder` and `--encoder`, as `register_mixer` adds a mixer.

    >>> from aaren_rl.layers import LinearEncoder
    >>> class Squashed(LinearEncoder):
    ...     def forward(self, observations):
    ...         return super().forward(observations.tanh())
    >>> _ = arl.register_encoder("squashed", Squashed)
    >>> run = arl.train("aaren-rl/hopper-small-v0", encoder="squashed", env="none", updates=2)

    The module's text has the arguments with which `make` is called.
    """
    ENCODERS.register(name, make, options=options)
    return make


def sees_images(name: str) -> bool:
    """Whether the encoder of this name takes images as they are; see the module's text.

    Raises:
        UserError: for an unknown encoder.
    """
    return bool(getattr(ENCODERS[name].make, "images", False))


def make_encoder(name: str, space: Any, width: int, options: Mapping[str, Any]) -> nn.Module:
    """A new encoder.

    Raises:
        UserError: for an unknown encoder, option or kind of space, or an encoder of images for
            observations without any.
    """
    layout, make = Layout.of(space), ENCODERS[name].make
    settings = ENCODERS.options(name, options)
    if layout.is_box:
        return make(space, width, **settings)
    if make is LinearEncoder and not any(leaf.tabled for leaf in layout.leaves):
        return LinearEncoder(layout, width)  # the sum of a linear encoder for each part

    def part(leaf: Leaf) -> nn.Module:
        if leaf.tabled:
            return ChoiceTables(leaf.levels, width)
        named = leaf.is_image if sees_images(name) else not leaf.levels
        return make(leaf.space, width, **settings) if named else LinearEncoder(leaf, width)

    if sees_images(name) and not any(leaf.is_image for leaf in layout.leaves):
        raise UserError(f"--encoder {name}: observations {space} hold no uint8 image")
    return Summed([part(leaf) for leaf in layout.leaves], layout.sizes)


class LinearEncoder(nn.Linear):
    """One linear map of all numbers, as in Decision Transformer."""

    def __init__(self, space: Any, width: int) -> None:
        super().__init__(math.prod(space.shape), width)


register_encoder("linear", LinearEncoder)

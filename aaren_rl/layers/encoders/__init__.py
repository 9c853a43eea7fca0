"""Observation encoders, each registered under its name."""

from aaren_rl.layers.encoders.base import (
    ENCODERS,
    LinearEncoder,
    make_encoder,
    register_encoder,
    sees_images,
)

__all__ = ["ENCODERS", "LinearEncoder", "make_encoder", "register_encoder", "sees_images"]

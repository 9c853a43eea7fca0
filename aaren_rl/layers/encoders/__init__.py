"""Observation encoders, each registered under its name."""

from aaren_rl.layers.encoders.base import (
    ENCODERS,
    LinearEncoder,
    make_encoder,
    register_encoder,
    sees_images,
)
from aaren_rl.layers.encoders.images import ImpalaEncoder, NatureEncoder, usual_image_encoder

__all__ = [
    "ENCODERS",
    "ImpalaEncoder",
    "LinearEncoder",
    "NatureEncoder",
    "make_encoder",
    "register_encoder",
    "sees_images",
    "usual_image_encoder",
]

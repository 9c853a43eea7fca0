"""Observation encoders, each registered under its name."""

from aaren_rl.layers.encoders import images  # noqa: F401  (they register encoders)

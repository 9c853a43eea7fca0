"""Prefix attention: softmax over every prefix by a recurrent state, in several exact backends."""

from aaren_rl.ops.dispatch import available_backends, prefix_attention
from aaren_rl.ops.state import PrefixState

__all__ = ["PrefixState", "available_backends", "prefix_attention"]

"""Torch modules: sequence mixers with one interface, and the block that they share."""

from aaren_rl.layers.aaren import AarenAttention
from aaren_rl.layers.attention import CausalSelfAttention, KeyValueCache
from aaren_rl.layers.block import Block, FeedForward
from aaren_rl.layers.sequence_model import MIXERS, SequenceModel
from aaren_rl.layers.state import MixerState, SequenceState

__all__ = [
    "MIXERS",
    "AarenAttention",
    "Block",
    "CausalSelfAttention",
    "FeedForward",
    "KeyValueCache",
    "MixerState",
    "SequenceModel",
    "SequenceState",
]

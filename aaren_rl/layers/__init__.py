"""Torch modules: sequence mixers with one interface, and the block that they share."""

from aaren_rl.layers.block import Block, FeedForward
from aaren_rl.layers.dropout import Dropout
from aaren_rl.layers.mixers.aaren import AarenAttention
from aaren_rl.layers.mixers.attention import CausalSelfAttention, KeyValueCache
from aaren_rl.layers.mixers.lstm import LSTMMixer
from aaren_rl.layers.mixers.min_gru import MinGRUMixer
from aaren_rl.layers.mixers.recurrent_state import HiddenState
from aaren_rl.layers.sequence_model import MIXERS, SequenceModel
from aaren_rl.layers.state import EVERY_TOKEN, MixerState, SequenceState

__all__ = [
    "EVERY_TOKEN",
    "MIXERS",
    "AarenAttention",
    "Block",
    "CausalSelfAttention",
    "Dropout",
    "FeedForward",
    "HiddenState",
    "KeyValueCache",
    "LSTMMixer",
    "MinGRUMixer",
    "MixerState",
    "SequenceModel",
    "SequenceState",
]

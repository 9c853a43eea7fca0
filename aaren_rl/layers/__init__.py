"""Torch modules: sequence mixers with one interface, their block, encoders and action heads."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.layers.dropout import Dropout
    from aaren_rl.layers.encoders.base import (
        ENCODERS,
        LinearEncoder,
        make_encoder,
        register_encoder,
        sees_images,
    )
    from aaren_rl.layers.encoders.images import usual_image_encoder
    from aaren_rl.layers.heads.base import HEADS, ActionHead, head_name, make_head, register_head
    from aaren_rl.layers.heads.gaussian import GaussianActions, GaussianMixture
    from aaren_rl.layers.heads.joined import ChoiceActions, JoinedActions
    from aaren_rl.layers.heads.plain import (
        CategoricalActions,
        ContinuousActions,
        DiscreteActions,
    )
    from aaren_rl.layers.mixers.aaren import AarenAttention
    from aaren_rl.layers.mixers.attention import CausalSelfAttention, KeyValueCache
    from aaren_rl.layers.mixers.base import RecurrentMixer, register_mixer
    from aaren_rl.layers.mixers.lstm import LSTMMixer
    from aaren_rl.layers.mixers.min_gru import MinGRUMixer
    from aaren_rl.layers.sequence_model import MIXERS, Block, FeedForward, SequenceModel
    from aaren_rl.layers.state import EVERY_TOKEN, HiddenState, SequenceState, TensorState

__all__ = [
    "ENCODERS",
    "EVERY_TOKEN",
    "HEADS",
    "MIXERS",
    "AarenAttention",
    "ActionHead",
    "Block",
    "CategoricalActions",
    "CausalSelfAttention",
    "ChoiceActions",
    "ContinuousActions",
    "DiscreteActions",
    "Dropout",
    "FeedForward",
    "GaussianActions",
    "GaussianMixture",
    "HiddenState",
    "JoinedActions",
    "KeyValueCache",
    "LSTMMixer",
    "LinearEncoder",
    "MinGRUMixer",
    "RecurrentMixer",
    "SequenceModel",
    "SequenceState",
    "TensorState",
    "head_name",
    "make_encoder",
    "make_head",
    "register_encoder",
    "register_head",
    "register_mixer",
    "sees_images",
    "usual_image_encoder",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

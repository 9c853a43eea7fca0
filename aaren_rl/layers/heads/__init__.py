"""Action heads, each registered under its name."""

from aaren_rl.layers.heads.base import HEADS, ActionHead, head_name, make_head, register_head
from aaren_rl.layers.heads.gaussian import GaussianActions, GaussianMixture
from aaren_rl.layers.heads.joined import ChoiceActions, JoinedActions
from aaren_rl.layers.heads.plain import (
    CategoricalActions,
    ContinuousActions,
    DiscreteActions,
)

__all__ = [
    "HEADS",
    "ActionHead",
    "CategoricalActions",
    "ChoiceActions",
    "ContinuousActions",
    "DiscreteActions",
    "GaussianActions",
    "GaussianMixture",
    "JoinedActions",
    "head_name",
    "make_head",
    "register_head",
]

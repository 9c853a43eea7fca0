"""The action heads under their name of the first edition."""

from aaren_rl.layers.heads import ContinuousActions, DiscreteActions

ActionCodec = ContinuousActions | DiscreteActions

__all__ = ["ActionCodec", "ContinuousActions", "DiscreteActions"]

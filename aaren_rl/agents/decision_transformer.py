"""Decision Transformer (Chen et al. 2021, arXiv 2106.01345): the baseline, equal save attention."""

from __future__ import annotations

from aaren_rl.agents.trajectory_agent import TrajectoryAgent


class DecisionTransformer(TrajectoryAgent):
    """Acts by recomputing a window (as everybody's does), or with a cache that grows (`carry`)."""

    name = "decision-transformer"
    mixer = "attention"
    default_mode = "window"

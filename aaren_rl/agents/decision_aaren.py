"""Decision Aaren: the trajectory agent whose attention is a recurrent network."""

from __future__ import annotations

from aaren_rl.agents.trajectory_agent import TrajectoryAgent


class DecisionAaren(TrajectoryAgent):
    """Trains with the parallel scan; acts by stepping a state of constant size."""

    name = "decision-aaren"
    mixer = "aaren"
    default_mode = "carry"

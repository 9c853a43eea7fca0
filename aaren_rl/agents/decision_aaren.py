"""Decision Aaren: the trajectory agent whose attention is a recurrent network."""

from __future__ import annotations

import numpy as np

from aaren_rl.acting import Policy
from aaren_rl.agents.aaren_policy import AarenPolicy
from aaren_rl.agents.aaren_step import AarenStep
from aaren_rl.agents.trajectory_agent import TrajectoryAgent


class DecisionAaren(TrajectoryAgent):
    """Trains with the parallel scan; acts by stepping a state of constant size.

    A policy copies the weights when it is made: it does not follow later training.
    """

    name = "decision-aaren"
    mixer = "aaren"
    default_mode = "carry"

    def _stepping_policy(self, targets: np.ndarray, restart_every: int | None) -> Policy:
        return AarenPolicy(self, AarenStep(self), targets, restart_every=restart_every)

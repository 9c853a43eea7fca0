"""Decision Transformer (Chen et al. 2021, arXiv 2106.01345): the baseline, equal save attention."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from aaren_rl.acting import Policy
from aaren_rl.agents.base import Mode
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.agents.trajectory_agent import TrajectoryAgent
from aaren_rl.agents.transformer_step import TransformerStep


class DecisionTransformer(TrajectoryAgent):
    """Acts by recomputing a window (as everybody's does), or with a cache.

    The cache grows with every step in mode `carry`, and holds the last context in mode `sliding`.
    A policy with a cache copies the weights when it is made: it does not follow later training.
    """

    name = "decision-transformer"
    mixer = "attention"
    modes = ("carry", "reset", "window", "sliding")
    default_mode = "window"

    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
    ) -> Policy:
        """Start acting in `num_envs` environments; see `Agent.policy`."""
        if mode != "sliding":
            return super().policy(num_envs, target_return, mode)
        targets = self.targets_for(target_return, num_envs)
        self.eval()
        keep = self.config.context_length
        if keep == 1:  # no past at all: not even the previous action
            return self._stepping_policy(targets, restart_every=1)
        return SteppingPolicy(self, targets, keep=keep, step=TransformerStep(self))

    def _stepping_policy(self, targets: np.ndarray, restart_every: int | None) -> Policy:
        return SteppingPolicy(self, targets, restart_every, step=TransformerStep(self))

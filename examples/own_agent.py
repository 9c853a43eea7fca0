"""An agent with a loss of its own: a Gaussian policy, trained by maximum likelihood.

Run it by `python examples/own_agent.py`, or in this folder
`aaren-rl train --plugin own_agent --agent gaussian-policy`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

import aaren_rl as arl
from aaren_rl.agents import DecisionAaren
from aaren_rl.data import Batch


@dataclass(frozen=True)
class GaussianOptions:
    """Options that the command line shows as `--agent-options.spread`."""

    spread: float = 0.5
    """Standard deviation at the start, in the network's units (actions scaled to [-1, 1])."""


class Gaussian(DecisionAaren):
    """Predicts the mean and the standard deviation of every action; acts by the mean."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.log_std = nn.Linear(self.config.width, self.spec.action_size)
        nn.init.zeros_(self.log_std.weight)
        nn.init.constant_(self.log_std.bias, torch.tensor(self.options.spread).log().item())

    def loss(self, batch: Batch) -> Tensor:
        """Negative log-likelihood of the data's actions, without its constant."""
        features = self.features(batch)  # [batch, time, width]
        log_std = self.log_std(features)
        errors = (self.head(features) - self.actions.encode(batch.actions)) / log_std.exp()
        return (errors.square() / 2 + log_std)[batch.mask].mean()


arl.register_agent("gaussian-policy", Gaussian, options=GaussianOptions)


def main(updates: int = 300, width: int = 64) -> float:
    """Train on the shipped Hopper data and act; the mean score."""
    run = arl.train(
        "aaren-rl/hopper-small-v0", "gaussian-policy", updates=updates, width=width, episodes=2
    )
    print(f"{run.agent.name}: score {run.scores[0].score_mean:.1f}")
    return run.scores[0].score_mean


if __name__ == "__main__":
    main()

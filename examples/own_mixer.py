"""A sequence mixer of one's own in attention's place: a leaky average of the tokens.

Run it by `python examples/own_mixer.py`, or in this folder
`aaren-rl train --plugin own_mixer --mixer leaky-average --mixer-options.keep 0.5`.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

import aaren_rl as arl
from aaren_rl.layers import HiddenState, RecurrentMixer


@dataclass(frozen=True)
class LeakyOptions:
    """Options that the command line shows as `--mixer-options.keep`."""

    keep: float = 0.9
    """Share of the average that is kept at each token."""


class Leaky(RecurrentMixer):
    """`mix` is all that a recurrent mixer needs; masks and packed batches come from the base."""

    def __init__(self, width: int, keep: float = 0.9) -> None:
        super().__init__()
        self.keep, self.out = keep, nn.Linear(width, width)

    def mix(self, x: Tensor, state: HiddenState | None) -> tuple[Tensor, HiddenState]:
        """Tokens `[batch, time, width]` and the state before them in, the same out."""
        average = torch.zeros_like(x[:, 0]) if state is None else state.vectors[:, 0]
        averages = []
        for token in x.unbind(dim=1):
            average = self.keep * average + (1 - self.keep) * token
            averages.append(average)
        return self.out(torch.stack(averages, dim=1)), HiddenState(average[:, None])


arl.register_mixer("leaky-average", Leaky, options=LeakyOptions)


def main(updates: int = 300, width: int = 64) -> float:
    """Train on the shipped Hopper data and act; the mean score."""
    mixer = {"mixer": "leaky-average", "mixer_options": {"keep": 0.5}}
    data = arl.load_dataset("aaren-rl/hopper-small-v0")
    run = arl.train(data, updates=updates, width=width, episodes=2, **mixer)
    print(f"{run.agent.name}: score {run.scores[0].score_mean:.1f}")
    return run.scores[0].score_mean


if __name__ == "__main__":
    main()

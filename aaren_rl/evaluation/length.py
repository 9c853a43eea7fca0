"""Action error by position in held-out episodes, which shows how far a carried state drifts."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import torch
from torch import Tensor

from aaren_rl.agents import Agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.sampling import Batch, gather
from aaren_rl.evaluation.memory import episode_batch

BOUNDS = (0, 1, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10_000, 100_000)
"""First steps of the bins of positions; each bin ends where the next begins."""
EPISODES = 16  # that are drawn
SAMPLES = 64  # steps measured in each bin: the window's error costs a forward pass of a window each


@dataclass(frozen=True)
class LengthError:
    """Action errors at randomly chosen steps from `first` up to, and without, `last`.

    For continuous actions the mean squared error, in units in which an action's range is [-1, 1]
    (without bounds: in standard deviations of the data); for discrete ones the share of wrong
    choices.

    Attributes:
        carry: mean error with the state carried from the episode's first step.
        window: mean error, at the same steps, of a window recomputed at each step.
        steps: number of steps measured.
    """

    first: int
    last: int
    carry: float
    window: float
    steps: int


@torch.no_grad()
def length_errors(agent: Agent, data: TrajectoryDataset) -> list[LengthError]:
    """The errors of a carried state and of a recomputed window, by position in the episode.

    There is a row for each bin of positions that the episodes reach, which are drawn from `data`.
    """
    training = agent.training
    agent.eval()
    generator = np.random.default_rng(0)
    chosen = generator.permutation(data.num_episodes)[:EPISODES]
    carried = {int(e): _errors(agent, episode_batch(data, int(e)))[0] for e in chosen}
    rows = []
    for first, last in pairwise(BOUNDS):
        steps = [(int(e), t) for e in chosen for t in range(first, min(last, data.lengths[e]))]
        if not steps:
            break
        picked = generator.permutation(len(steps))[:SAMPLES]
        places = np.array([steps[i] for i in picked])
        carry = np.array([float(carried[e][t]) for e, t in places.tolist()])
        window = _window_errors(agent, data, places)
        rows.append(
            LengthError(first, last, float(carry.mean()), float(window.mean()), len(places))
        )
    agent.train(training)
    return rows


def _window_errors(agent: Agent, data: TrajectoryDataset, places: np.ndarray) -> np.ndarray:
    """Errors `[places]` at (episode, step) `places`, each the last step of its own window."""
    context = agent.config.context_length
    here = data.offsets[places[:, 0]] + places[:, 1]
    first = np.maximum(here - context + 1, data.offsets[places[:, 0]])
    batch = gather(data, first, here + 1, context)
    errors = _errors(agent, batch)
    last = batch.mask.sum(1) - 1
    return errors[torch.arange(len(last)), last].numpy()


def _errors(agent: Agent, batch: Batch) -> Tensor:
    """The error of every step, `[batch, time]`, on the CPU."""
    batch = batch.to(agent.observation_mean.device)
    predictions = agent.predict(batch)
    return agent.actions.error(predictions, batch.actions).double().cpu()

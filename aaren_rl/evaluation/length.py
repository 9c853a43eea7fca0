"""Action error by position in held-out episodes: does the carried state drift, without acting?"""

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
SAMPLES = 64  # positions a bin for the window's error: each costs a window


@dataclass(frozen=True)
class LengthError:
    """Errors at the steps `first` to `last` (that excluded) of the episodes.

    Continuous actions: mean squared error in units in which an action's range is [-1, 1]
    (without bounds: of the data's standard deviation);
    discrete ones: the share of wrong choices. Both at the same, randomly chosen steps.
    """

    first: int
    last: int
    carry: float
    window: float
    steps: int


@torch.no_grad()
def length_errors(
    agent: Agent, data: TrajectoryDataset, *, episodes: int = 16, seed: int = 0
) -> list[LengthError]:
    """Carry's and window's errors by position."""
    training = agent.training
    agent.eval()
    generator = np.random.default_rng(seed)
    chosen = generator.permutation(data.num_episodes)[:episodes]
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
    """Errors at (episode, step) `places`, each seen at the end of its own window."""
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

"""Seeds of evaluation episodes: disjoint between training seeds, equal between agents.

Each training seed owns two blocks of `EPISODES_PER_BLOCK` episode seeds, one for evaluations during
training and one for evaluations after it:

    FIRST_SEED + 2 * EPISODES_PER_BLOCK * training_seed + (0 or EPISODES_PER_BLOCK) + episode

The agent does not enter. Two agents trained with the same seed therefore act from the same start
states, and their scores are compared in pairs; runs with different training seeds share no episode,
so that their scores are independent. Asking for more episodes extends a block and never reaches the
next one. `FIRST_SEED` lies above the seeds with which this library collects data. Training seeds
below 10,000 give episode seeds below 2^31.

Episodes that an agent plays to learn from them (`aaren-rl finetune`) have seeds of their own,
`FIRST_PLAYED + 2 * EPISODES_PER_BLOCK * training_seed + episode`, from 2^31 on.
"""

from __future__ import annotations

from typing import Literal

FIRST_SEED = 100_000_000
FIRST_PLAYED = 2**31
EPISODES_PER_BLOCK = 100_000
"""The most evaluation episodes of one run during training, and again after it."""


def first_episode_seed(
    training_seed: int, when: Literal["during training", "after training", "when playing"]
) -> int:
    """The seed of a run's first episode of a kind; the next episodes count up from it."""
    if when == "when playing":
        return FIRST_PLAYED + 2 * EPISODES_PER_BLOCK * training_seed
    block = 2 * training_seed + (when == "after training")
    return FIRST_SEED + EPISODES_PER_BLOCK * block

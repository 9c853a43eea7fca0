"""Training batches of whole episodes: a budget of steps instead of a number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np

from aaren_rl.data.sampling import Batch, gather
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError

POOL = 256  # episodes that are sorted by length together


class EpisodeSampler:
    """Goes through the dataset episode by episode, in batches of episodes of similar length.

    Every epoch takes each episode once, in a new order. To keep padding small, each pool of
    `POOL` episodes of that order is sorted by length before it is cut into batches, and its
    batches are then shuffled. Processes take batches in turn.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        batch_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare to draw.

        Args:
            dataset: what to draw from.
            batch_steps: most steps of a batch, padding included; an episode that is longer is a
                batch of its own.
            seed: of the generator, the same on every process.
            rank: this process, from 0.
            world_size: number of processes.

        Raises:
            UserError: a budget below 1.
        """
        if batch_steps < 1:
            raise UserError(f"batch steps {batch_steps}: at least 1 expected")
        self.dataset, self.batch_steps = dataset, batch_steps
        self._rank, self._world_size = rank, world_size
        self._generator = np.random.default_rng(seed)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._epoch_start = self._generator.bit_generator.state
        self._batches = self._draw_epoch()
        self._next = 0

    def _draw_epoch(self) -> list[np.ndarray[Any, Any]]:
        order = self._generator.permutation(self.dataset.num_episodes)
        batches: list[np.ndarray[Any, Any]] = []
        for start in range(0, len(order), POOL):
            pool = order[start : start + POOL]
            pool = pool[np.argsort(self.dataset.lengths[pool], kind="stable")]
            cut = self._cut(pool)
            batches += [cut[i] for i in self._generator.permutation(len(cut))]
        return batches

    def _cut(self, pool: np.ndarray[Any, Any]) -> list[np.ndarray[Any, Any]]:
        """Cut episodes (indices, shortest first) into batches within the budget."""
        batches, first = [], 0
        for last, length in enumerate(self.dataset.lengths[pool].tolist()):
            if last > first and length * (last - first + 1) > self.batch_steps:
                batches.append(pool[first:last])
                first = last
        return [*batches, pool[first:]]

    def sample(self) -> Batch:
        """The next batch of this process; as long as its longest episode."""
        batches = [self._take() for _ in range(self._world_size)]
        episodes = batches[self._rank]
        offsets = self.dataset.offsets
        longest = int(self.dataset.lengths[episodes].max())
        return gather(self.dataset, offsets[episodes], offsets[episodes + 1], longest)

    def _take(self) -> np.ndarray[Any, Any]:
        if self._next == len(self._batches):
            self._begin_epoch()
        self._next += 1
        return self._batches[self._next - 1]

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as JSON can hold it."""
        return {"epoch_start": self._epoch_start, "next": self._next}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self._generator.bit_generator.state = state["epoch_start"]
        self._begin_epoch()
        self._next = state["next"]

"""Training batches in order: segments of episodes, each going on where the last one ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aaren_rl.data.sampling import Batch, gather
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError


class StreamSampler:
    """Reads `batch_size` episodes side by side, `context_length` steps of each at a time.

    Row i of a batch goes on where row i of the batch before ended, so that a state can be carried
    from one to the next; where a row starts an episode, `Batch.starts` says so. An episode's last
    segment is cut at its end, and the row takes a new episode in the next batch. Episodes come in
    a shuffled order, each once before any comes again. Each process keeps its own rows.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        batch_size: int,
        context_length: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
    ) -> None:
        """Prepare to read.

        Args:
            dataset: what to read.
            batch_size: episodes side by side, over all processes together.
            context_length: steps of a segment.
            seed: of the generator, the same on every process.
            rank: this process, from 0.
            world_size: number of processes.

        Raises:
            UserError: a size below 1, or rows that do not divide among the processes.
        """
        if context_length < 1:
            raise UserError(f"context length {context_length}: at least 1 expected")
        if batch_size < 1 or batch_size % world_size:
            raise UserError(
                f"batch size {batch_size}: a positive multiple of the {world_size} process(es) "
                "expected"
            )
        self.dataset, self.context_length = dataset, context_length
        share = batch_size // world_size
        self._rows = slice(rank * share, (rank + 1) * share)
        self._generator = np.random.default_rng(seed)
        self._waiting: list[int] = []
        self._position = np.zeros(batch_size, dtype=np.int64)  # the next step of each row
        self._end = np.zeros(batch_size, dtype=np.int64)  # one behind its episode's last step

    def sample(self) -> Batch:
        """Read the next segment of every row (this process's rows)."""
        starts = self._position == self._end
        for row in np.flatnonzero(starts):
            episode = self._next_episode()
            self._position[row] = self.dataset.offsets[episode]
            self._end[row] = self.dataset.offsets[episode + 1]
        first, end = self._position[self._rows], self._end[self._rows]
        batch = gather(self.dataset, first, end, self.context_length)
        self._position = np.minimum(self._position + self.context_length, self._end)
        return batch._replace(starts=torch.from_numpy(starts[self._rows]))

    def _next_episode(self) -> int:
        if not self._waiting:
            self._waiting = self._generator.permutation(self.dataset.num_episodes).tolist()
        return self._waiting.pop()

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as JSON can hold it."""
        return {
            "generator": self._generator.bit_generator.state,
            "waiting": list(self._waiting),
            "position": self._position.tolist(),
            "end": self._end.tolist(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self._generator.bit_generator.state = state["generator"]
        self._waiting = list(state["waiting"])
        self._position = np.asarray(state["position"], dtype=np.int64)
        self._end = np.asarray(state["end"], dtype=np.int64)

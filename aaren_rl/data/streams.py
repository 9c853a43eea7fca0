"""Training batches in order: segments of episodes, each going on where the last one ended."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aaren_rl.data.mixture import episode_order
from aaren_rl.data.sampling import (
    Batch,
    GoalChooser,
    gather,
    goals_state,
    restore_goals,
    share_of_rows,
)
from aaren_rl.data.trajectory import TrajectoryDataset


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
        goals: GoalChooser | None = None,
    ) -> None:
        """Prepare to read; arguments and errors as `WindowSampler`'s, of segments for windows."""
        self._rows = share_of_rows(batch_size, context_length, rank, world_size)
        self.dataset, self.context_length, self.goals = dataset, context_length, goals
        self._goal = np.zeros(batch_size, dtype=np.int64)  # the step that achieves each row's goal
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
        if self.goals is not None:
            self._goal = self.goals.choose(self._position, self._end - 1, self._goal, starts)
            batch = self.goals.put(batch, self._goal[self._rows, None])
        return batch._replace(starts=torch.from_numpy(starts[self._rows]))

    def _next_episode(self) -> int:
        if not self._waiting:
            self._waiting = episode_order(self._generator, self.dataset).tolist()
        return self._waiting.pop()

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as JSON can hold it."""
        return {
            "generator": self._generator.bit_generator.state,
            "waiting": list(self._waiting),
            "position": self._position.tolist(),
            "end": self._end.tolist(),
            **({} if self.goals is None else {"goal": self._goal.tolist()}),
            **goals_state(self.goals),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self._generator.bit_generator.state = state["generator"]
        self._waiting = list(state["waiting"])
        self._position = np.asarray(state["position"], dtype=np.int64)
        self._end = np.asarray(state["end"], dtype=np.int64)
        if self.goals is not None:
            self._goal = np.asarray(state["goal"], dtype=np.int64)
        restore_goals(self.goals, state)

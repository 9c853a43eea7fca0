"""Training batches of whole episodes: a budget of steps instead of a number of rows."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch

from aaren_rl.data.mixture import episode_order
from aaren_rl.data.sampling import Batch, GoalChooser, goals_state, restore_goals, tasks_of, widened
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError

LOOK_AHEAD = 64  # of all episodes the search would be quadratic; of these it finds nearly as much
ROUND_TO = 64
"""Rows are padded to a multiple of so many steps: matrix products are prepared anew for every new
number of rows, which costs more than the padding (docs: benchmarks/README.md)."""


class EpisodeSampler:
    """Goes through the dataset episode by episode: each once an epoch, in a new order.

    Episodes are packed: one after the other in one row, so that hardly anything is padding. A batch
    is filled with those that still fit among the next `LOOK_AHEAD`. Processes take batches in turn.
    """

    def __init__(
        self,
        dataset: TrajectoryDataset,
        *,
        batch_steps: int,
        seed: int,
        rank: int = 0,
        world_size: int = 1,
        goals: GoalChooser | None = None,
    ) -> None:
        """Prepare to draw, as `WindowSampler`, but with a budget in place of a batch size.

        `batch_steps`, at least 1, is the most steps of a batch; an episode that is longer is a
        batch of its own.
        """
        if batch_steps < 1:
            raise UserError(f"batch steps {batch_steps}: at least 1 expected")
        self.dataset, self.batch_steps, self.goals = dataset, batch_steps, goals
        self._rank, self._world_size = rank, world_size
        self._generator = np.random.default_rng(seed)
        self._begin_epoch()

    def _begin_epoch(self) -> None:
        self._epoch_start = self._generator.bit_generator.state
        self._batches = self._draw_epoch()
        self._next = 0

    def _draw_epoch(self) -> list[np.ndarray[Any, Any]]:
        """A new order of all episodes, cut into batches within the budget."""
        waiting = episode_order(self._generator, self.dataset).tolist()[::-1]
        lengths, batches = self.dataset.lengths, []
        while waiting:
            batch = [waiting.pop()]
            free = self.batch_steps - lengths[batch[0]]
            for place in range(len(waiting) - 1, max(-1, len(waiting) - 1 - LOOK_AHEAD), -1):
                if lengths[waiting[place]] <= free:
                    batch.append(waiting.pop(place))
                    free -= lengths[batch[-1]]
            batches.append(np.array(batch))
        return batches

    def sample(self) -> Batch:
        """The next batch of this process: one row of whole episodes."""
        batches = [self._take() for _ in range(self._world_size)]
        batch = pack(self.dataset, batches[self._rank])
        if self.goals is None:
            return batch
        return self.goals.put(batch, self.goals.of_episodes(batches[self._rank])[None])

    def _take(self) -> np.ndarray[Any, Any]:
        if self._next == len(self._batches):
            self._begin_epoch()
        self._next += 1
        return self._batches[self._next - 1]

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as JSON can hold it."""
        return {
            "epoch_start": self._epoch_start,
            "next": self._next,
            **goals_state(self.goals),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self._generator.bit_generator.state = state["epoch_start"]
        self._begin_epoch()
        self._next = state["next"]
        restore_goals(self.goals, state)


def pack(data: TrajectoryDataset, episodes: np.ndarray[Any, Any]) -> Batch:
    """Whole episodes (indices) one after the other in one row, with `cu_seqlens`.

    The row is padded with zeros to a multiple of `ROUND_TO` steps, in `cu_seqlens` one sequence
    more.
    """
    lengths = data.lengths[episodes]
    ends = np.cumsum(lengths)
    # Step i of the row is step i - (its episode's place in the row) of that episode.
    rows = np.arange(ends[-1]) + np.repeat(data.offsets[episodes] - (ends - lengths), lengths)
    padding = -len(rows) % ROUND_TO
    if padding:
        ends = np.append(ends, ends[-1] + padding)

    def take(values: np.ndarray[Any, Any]) -> torch.Tensor:
        taken = np.zeros((len(rows) + padding, *values.shape[1:]), values.dtype)
        taken[: len(rows)] = values[rows]
        return torch.from_numpy(widened(taken))[None]

    mask = torch.arange(len(rows) + padding) < len(rows)
    return Batch(
        observations=take(data.observations),
        actions=take(data.actions),
        returns_to_go=take(data.returns_to_go).unsqueeze(-1),
        timesteps=take(data.timesteps),
        mask=mask[None],
        tasks=tasks_of(data, np.pad(rows, (0, padding))[None]),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends])),
    )

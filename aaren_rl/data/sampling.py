"""Training batches: windows, whole episodes or streams of episodes, by index arithmetic."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from aaren_rl.data.hindsight import HindsightGoals
from aaren_rl.data.mixture import MixedDataset, drawn_places, episode_order
from aaren_rl.data.rows import row_numbers, widened
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError

LOOK_AHEAD = 64
"""Waiting episodes that `EpisodeSampler` searches for one that fits; all would take quadratic time
and fill batches hardly better."""
ROUND_TO = 64
"""Packed rows are padded to a multiple of this number of steps: matrix products are prepared anew
for every new number of rows, which costs more than the padding (docs: benchmarks/README.md)."""


class Batch(NamedTuple):
    """Windows of episodes, padded on the right with zeros.

    Attributes:
        observations: `[batch, time, columns]`, float32, or uint8 where the dataset's are.
        actions: float32 `[batch, time, columns]`, or int64 `[batch, time]` (Discrete).
        returns_to_go: float32 `[batch, time, 1]`, unscaled.
        timesteps: int64 `[batch, time]`, within the episode.
        mask: bool `[batch, time]`, True where there is a step.
        starts: bool `[batch]`, True where a row starts an episode and False where it continues
            the same row of the batch before; None where no row does.
        tasks: int64 `[batch, 1]` or, packed, `[1, time]`: which dataset of a mixture a step comes
            from; None for data that are no mixture.
        cu_seqlens: int64 `[sequences + 1]`, on the CPU: in a packed batch (of one row), where its
            episodes begin and end; None where each row is one slice.
    """

    observations: torch.Tensor
    actions: torch.Tensor
    returns_to_go: torch.Tensor
    timesteps: torch.Tensor
    mask: torch.Tensor
    starts: torch.Tensor | None = None
    tasks: torch.Tensor | None = None
    cu_seqlens: torch.Tensor | None = None

    def to(self, device: torch.device | str) -> Batch:
        """The same batch on another device; `cu_seqlens` stays on the CPU, where it is read.

        Copies from page-locked memory are asynchronous.
        """
        moved = [None if part is None else part.to(device, non_blocking=True) for part in self[:-1]]
        return Batch._make([*moved, self.cu_seqlens])

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (needs CUDA); `cu_seqlens` stays as it is."""
        pinned = [None if part is None else part.pin_memory() for part in self[:-1]]
        return Batch._make([*pinned, self.cu_seqlens])


class Sampler(Protocol):
    """A source of batches whose position can be saved and restored."""

    def sample(self) -> Batch:
        """The next batch of this process."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """The sampler's position, as JSON values."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` gave."""
        ...


class _DatasetSampler:
    """What the samplers below share: a dataset, a seeded generator, and goals in hindsight.

    Every process draws the whole batch from the same generator and keeps its own slice: the
    training data do not depend on the number of processes.
    """

    def __init__(self, dataset: TrajectoryDataset, seed: int, goals: HindsightGoals | None) -> None:
        self.dataset, self.goals = dataset, goals
        self._generator = np.random.default_rng(seed)

    def _relabelled(self, batch: Batch, rows: NDArray[np.int64]) -> Batch:
        """The batch with the goals that these steps of the dataset achieve."""
        assert self.goals is not None
        observations = self.goals.relabel(batch.observations, batch.mask, rows)
        return batch._replace(observations=observations)

    def state_dict(self) -> dict[str, Any]:
        """The sampler's position, as JSON values."""
        goals = {} if self.goals is None else {"goals": self.goals.batches}
        return {"generator": self._generator.bit_generator.state, **goals}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a position that `state_dict` gave."""
        self._generator.bit_generator.state = state["generator"]
        if self.goals is not None:
            self.goals.batches = int(state["goals"])


class WindowSampler(_DatasetSampler):
    """Draws windows so that every step of a dataset is equally often in one.

    A window is `context_length` steps long and may reach beyond both ends of its episode; what lies
    outside is cut away. Its place is uniform over all places that hold at least one step, in all
    episodes.

    Decision Transformer's code lets windows begin inside the episode only (`inside`). The first
    step is then in one window where a later one is in `context_length`, although every evaluation
    episode begins there, and the return alone tells the agent there which behaviour is asked for.
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
        inside: bool = False,
        goals: HindsightGoals | None = None,
    ) -> None:
        """Prepare to draw.

        Args:
            dataset: what to draw from.
            batch_size: windows a batch, over all processes together.
            context_length: steps a window.
            seed: of the generator, the same on every process.
            rank: this process, from 0.
            world_size: number of processes.
            inside: let every window begin at a step of its episode.
            goals: gives each window another goal; `None` leaves the data's own.

        Raises:
            UserError: a size below 1, or a batch that does not divide among the processes.
        """
        super().__init__(dataset, seed, goals)
        self._rows = _rows_of_process(batch_size, context_length, rank, world_size)
        self._before = 0 if inside else context_length - 1  # places before an episode's start
        self.batch_size, self.context_length = batch_size, context_length

    def sample(self) -> Batch:
        """Draw the next batch (this process's share of it)."""
        before, offsets = self._before, self.dataset.offsets
        places = offsets + before * np.arange(len(offsets))  # of each episode's first place
        drawn = drawn_places(self._generator, self.dataset, places, self.batch_size)
        episodes = np.searchsorted(places, drawn, side="right") - 1
        starts = offsets[episodes] + drawn - places[episodes] - before
        ends = np.minimum(starts + self.context_length, offsets[episodes + 1])
        starts, own = np.maximum(starts, offsets[episodes]), self._rows
        batch = gather(self.dataset, starts[own], ends[own], self.context_length)
        if self.goals is None:
            return batch
        goals = self.goals.choose(ends, offsets[episodes + 1] - 1)
        return self._relabelled(batch, goals[own, None])


class StreamSampler(_DatasetSampler):
    """Reads `batch_size` episodes side by side, `context_length` steps of each at a time.

    Row i of a batch continues where row i of the batch before ended, so that a state can be carried
    from one to the next; where a row starts an episode, `Batch.starts` says so. An episode's last
    segment is cut at its end, and the row takes a new episode in the next batch. Episodes come in
    a shuffled order, each once before any comes again.
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
        goals: HindsightGoals | None = None,
    ) -> None:
        """Prepare to read; arguments and errors as `WindowSampler`'s, of segments for windows."""
        super().__init__(dataset, seed, goals)
        self._rows = _rows_of_process(batch_size, context_length, rank, world_size)
        self.context_length = context_length
        self._waiting: list[int] = []
        self._position = np.zeros(batch_size, dtype=np.int64)  # the next step of each row
        self._end = np.zeros(batch_size, dtype=np.int64)  # one behind its episode's last step
        self._goal = np.zeros(batch_size, dtype=np.int64)  # the step that achieves each row's goal

    def sample(self) -> Batch:
        """Read the next segment of every row (this process's rows)."""
        starts = self._position == self._end
        for row in np.flatnonzero(starts):
            if not self._waiting:
                self._waiting = episode_order(self._generator, self.dataset).tolist()
            episode = self._waiting.pop()
            self._position[row], self._end[row] = self.dataset.offsets[episode : episode + 2]
        first, end = self._position[self._rows], self._end[self._rows]
        batch = gather(self.dataset, first, end, self.context_length)
        self._position = np.minimum(self._position + self.context_length, self._end)
        if self.goals is not None:
            self._goal = self.goals.choose(self._position, self._end - 1, self._goal, starts)
            batch = self._relabelled(batch, self._goal[self._rows, None])
        return batch._replace(starts=torch.from_numpy(starts[self._rows]))

    def state_dict(self) -> dict[str, Any]:
        """See `Sampler`."""
        return {
            **super().state_dict(),
            "waiting": list(self._waiting),
            "position": self._position.tolist(),
            "end": self._end.tolist(),
            **({} if self.goals is None else {"goal": self._goal.tolist()}),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Sampler`."""
        super().load_state_dict(state)
        self._waiting = list(state["waiting"])
        self._position = np.asarray(state["position"], dtype=np.int64)
        self._end = np.asarray(state["end"], dtype=np.int64)
        if self.goals is not None:
            self._goal = np.asarray(state["goal"], dtype=np.int64)


class EpisodeSampler(_DatasetSampler):
    """Draws whole episodes, each once an epoch in a new order, up to a number of steps a batch.

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
        goals: HindsightGoals | None = None,
    ) -> None:
        """Prepare to draw, as `WindowSampler`, but with a number of steps for the batch size.

        `batch_steps`, at least 1 (else `UserError`), is the most steps of a batch; an episode that
        is longer is a batch of its own.
        """
        if batch_steps < 1:
            raise UserError(f"batch steps {batch_steps}: at least 1 expected")
        super().__init__(dataset, seed, goals)
        self.batch_steps = batch_steps
        self._rank, self._world_size = rank, world_size
        self._start_epoch()

    def _start_epoch(self) -> None:
        """Cut a new order of all episodes into batches of at most `batch_steps` steps."""
        self._epoch_start = self._generator.bit_generator.state
        self._batches: list[NDArray[np.int64]] = []
        self._next = 0
        waiting = episode_order(self._generator, self.dataset).tolist()[::-1]
        lengths = self.dataset.lengths
        while waiting:
            batch = [waiting.pop()]
            free = self.batch_steps - lengths[batch[0]]
            for place in range(len(waiting) - 1, max(-1, len(waiting) - 1 - LOOK_AHEAD), -1):
                if lengths[waiting[place]] <= free:
                    batch.append(waiting.pop(place))
                    free -= lengths[batch[-1]]
            self._batches.append(np.array(batch))

    def sample(self) -> Batch:
        """The next batch of this process: one row of whole episodes."""
        taken = []
        for _ in range(self._world_size):
            if self._next == len(self._batches):
                self._start_epoch()
            taken.append(self._batches[self._next])
            self._next += 1
        episodes = taken[self._rank]
        batch = pack(self.dataset, episodes)
        if self.goals is None:
            return batch
        return self._relabelled(batch, self.goals.of_episodes(episodes)[None])

    def state_dict(self) -> dict[str, Any]:
        """See `Sampler`."""
        state = super().state_dict()
        del state["generator"]
        return {"epoch_start": self._epoch_start, "next": self._next, **state}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """See `Sampler`."""
        super().load_state_dict({**state, "generator": state["epoch_start"]})
        self._start_epoch()
        self._next = state["next"]


def _rows_of_process(batch_size: int, context_length: int, rank: int, world_size: int) -> slice:
    """The rows of a batch that one of several processes has; raises `UserError` for bad sizes."""
    if context_length < 1:
        raise UserError(f"context length {context_length}: at least 1 expected")
    if batch_size < 1 or batch_size % world_size:
        raise UserError(
            f"batch size {batch_size}: a positive multiple of the {world_size} process(es) expected"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def gather(
    data: TrajectoryDataset, first: NDArray[np.int64], end: NDArray[np.int64], time: int
) -> Batch:
    """Slices of a dataset as a batch, each cut after `time` steps.

    Args:
        data: what to take from.
        first: int64 `[batch]`, the first step of each slice.
        end: int64 `[batch]`, one behind its last step.
        time: steps of the batch; shorter slices are padded.
    """
    indices = first[:, None] + np.arange(time)
    mask = indices < end[:, None]
    indices[~mask] = 0  # any valid row: its values are zeroed below

    def take(values: NDArray[Any]) -> torch.Tensor:
        rows = values.take(indices, axis=0)
        rows[~mask] = 0
        return torch.from_numpy(widened(rows))

    return Batch(
        observations=take(data.observations),
        actions=take(data.actions),
        returns_to_go=take(data.returns_to_go).unsqueeze(-1),
        timesteps=take(data.timesteps),
        mask=torch.from_numpy(mask),
        tasks=_tasks_of(data, first[:, None]),
    )


def pack(data: TrajectoryDataset, episodes: NDArray[np.int64]) -> Batch:
    """Whole episodes (indices) one after the other in one row, with `cu_seqlens`.

    The row is padded with zeros to a multiple of `ROUND_TO` steps, in `cu_seqlens` one sequence
    more.
    """
    lengths = data.lengths[episodes]
    ends = np.cumsum(lengths)
    rows = row_numbers(data.offsets[episodes], lengths)
    padding = -len(rows) % ROUND_TO
    if padding:
        ends = np.append(ends, ends[-1] + padding)

    def take(values: NDArray[Any]) -> torch.Tensor:
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
        tasks=_tasks_of(data, np.pad(rows, (0, padding))[None]),
        cu_seqlens=torch.from_numpy(np.concatenate([[0], ends])),
    )


def _tasks_of(data: TrajectoryDataset, rows: NDArray[np.int64]) -> torch.Tensor | None:
    """`Batch.tasks` of these steps."""
    return torch.from_numpy(data.tasks_of(rows)) if isinstance(data, MixedDataset) else None

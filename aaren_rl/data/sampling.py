"""Training batches: windows of episodes, gathered by index arithmetic."""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import numpy as np
import torch

from aaren_rl.data.mixture import MixedDataset, drawn_places
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError


class Batch(NamedTuple):
    """Windows of episodes, padded on the right with zeros.

    Attributes:
        observations: `[batch, time, columns]`, float32, or uint8 where the dataset's are.
        actions: float32 `[batch, time, columns]`, or int64 `[batch, time]` (Discrete).
        returns_to_go: float32 `[batch, time, 1]`, unscaled.
        timesteps: int64 `[batch, time]`, within the episode.
        mask: bool `[batch, time]`, True where there is a step.
        starts: bool `[batch]`, True where a row starts an episode and False where it goes on from
            the same row of the batch before; None where no row goes on.
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

        From page-locked memory the copies do not wait.
        """
        moved = [None if part is None else part.to(device, non_blocking=True) for part in self[:-1]]
        return Batch._make([*moved, self.cu_seqlens])

    def pin_memory(self) -> Batch:
        """The same batch in page-locked memory (needs CUDA); `cu_seqlens` stays as it is."""
        pinned = [None if part is None else part.pin_memory() for part in self[:-1]]
        return Batch._make([*pinned, self.cu_seqlens])


class Sampler(Protocol):
    """A source of batches that can be stopped and taken up again."""

    def sample(self) -> Batch:
        """The next batch of this process."""
        ...

    def state_dict(self) -> dict[str, Any]:
        """Where the sampler stands, as JSON can hold it."""
        ...

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        ...


class GoalChooser(Protocol):
    """Puts other goals into batches; `aaren_rl.data.hindsight.HindsightGoals` is the one."""

    batches: int

    def choose(
        self,
        behind: np.ndarray[Any, Any],
        last: np.ndarray[Any, Any],
        kept: np.ndarray[Any, Any] | None = None,
        fresh: np.ndarray[Any, Any] | None = None,
    ) -> np.ndarray[Any, Any]:
        """Steps that achieve the goals of a batch's rows."""
        ...

    def of_episodes(self, episodes: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """Steps that achieve the goals of all steps of whole episodes."""
        ...

    def put(self, batch: Batch, rows: np.ndarray[Any, Any]) -> Batch:
        """The batch with these steps' achieved goals as its desired ones."""
        ...


class WindowSampler:
    """Draws windows so that every step of a dataset is equally often in one.

    A window is `context_length` steps long and may reach beyond both ends of its episode; what lies
    outside is cut away. Its place is uniform over all places that hold at least one step, in all
    episodes.

    Decision Transformer's code lets windows begin inside the episode only (`inside`). The first
    step is then in one window where a later one is in `context_length`, although every episode that
    is acted in begins there, and nothing but the return tells the agent there which behaviour is
    asked for.

    Every process draws the whole batch from the same generator and keeps its own slice: what is
    learned from does not depend on the number of processes.
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
        goals: GoalChooser | None = None,
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
        self._rows = share_of_rows(batch_size, context_length, rank, world_size)
        self._before = 0 if inside else context_length - 1  # places before an episode's start
        self.dataset, self.goals = dataset, goals
        self.batch_size = batch_size
        self.context_length = context_length
        self._generator = np.random.default_rng(seed)

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
        goals = self.goals.choose(ends, offsets[episodes + 1] - 1)[own, None]
        return self.goals.put(batch, goals)

    def state_dict(self) -> dict[str, Any]:
        """The generator's state, as JSON can hold it."""
        return {"generator": self._generator.bit_generator.state, **goals_state(self.goals)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue where the sampler that gave `state` stood."""
        self._generator.bit_generator.state = state["generator"]
        restore_goals(self.goals, state)


def goals_state(goals: GoalChooser | None) -> dict[str, Any]:
    """What a sampler's state says of its goals: nothing where the data's own are left."""
    return {} if goals is None else {"goals": goals.batches}


def restore_goals(goals: GoalChooser | None, state: dict[str, Any]) -> None:
    """The inverse of `goals_state`."""
    if goals is not None:
        goals.batches = int(state["goals"])


def share_of_rows(batch_size: int, context_length: int, rank: int, world_size: int) -> slice:
    """The rows of a batch that one of several processes has.

    Raises:
        UserError: a size below 1, or a batch that does not divide among the processes.
    """
    if context_length < 1:
        raise UserError(f"context length {context_length}: at least 1 expected")
    if batch_size < 1 or batch_size % world_size:
        raise UserError(
            f"batch size {batch_size}: a positive multiple of the {world_size} process(es) expected"
        )
    share = batch_size // world_size
    return slice(rank * share, (rank + 1) * share)


def gather(
    data: TrajectoryDataset,
    first: np.ndarray[Any, Any],
    end: np.ndarray[Any, Any],
    time: int,
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
    return Batch(
        observations=_gather(data.observations, indices, mask),
        actions=_gather(data.actions, indices, mask),
        returns_to_go=_gather(data.returns_to_go, indices, mask).unsqueeze(-1),
        timesteps=_gather(data.timesteps, indices, mask),
        mask=torch.from_numpy(mask),
        tasks=tasks_of(data, first[:, None]),
    )


def tasks_of(data: TrajectoryDataset, rows: np.ndarray[Any, Any]) -> torch.Tensor | None:
    """`Batch.tasks` of these steps."""
    return torch.from_numpy(data.tasks_of(rows)) if isinstance(data, MixedDataset) else None


def _gather(
    values: np.ndarray[Any, Any], indices: np.ndarray[Any, Any], mask: np.ndarray[Any, Any]
) -> torch.Tensor:
    """Rows of `values` at `indices` `[batch, time]`, zero where `mask` is False."""
    rows = values.take(indices, axis=0)
    rows[~mask] = 0
    return torch.from_numpy(widened(rows))


def widened(rows: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """Numbers of narrow dtypes as float32; images stay uint8."""
    narrow = rows.dtype.itemsize < 4 and rows.dtype != np.uint8
    return rows.astype(np.float32) if narrow else rows

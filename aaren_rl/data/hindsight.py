"""Goals in hindsight: what an episode reached later, in place of the goal that it was given.

Andrychowicz et al. 2017 (arXiv 1707.01495) for replay buffers, Ghosh et al. 2021 (arXiv 1912.06088)
for supervised learning: whatever was reached, the actions before it are a demonstration of how to
reach it. Observations are a Dict with `achieved_goal` and `desired_goal`, as in Gymnasium-Robotics.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from aaren_rl.data.rows import widened
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

ACHIEVED, DESIRED = "achieved_goal", "desired_goal"


def goal_columns(layout: Layout) -> tuple[slice, slice]:
    """The columns of the goal that is achieved, and of the desired one, of the same size.

    Raises:
        UserError: observations without these two parts of one shape, or goals that are choices.
    """
    found: dict[str, list[int]] = {ACHIEVED: [], DESIRED: []}
    for i, leaf in enumerate(layout.leaves):
        if leaf.path and leaf.path[0] in found:
            found[str(leaf.path[0])].append(i)
    forms = [[layout.leaves[i].form[1:] for i in found[name]] for name in found]
    if not forms[0] or forms[0] != forms[1]:
        there = (f"{leaf.name or 'the observation'} {list(leaf.shape)}" for leaf in layout.leaves)
        raise UserError(
            f"--condition goal: observations must be a Dict with the parts {ACHIEVED} and {DESIRED}"
            f" of one shape; the parts here: {', '.join(there)}"
        )
    for leaf in layout.leaves:
        if leaf.path[0] == DESIRED and leaf.levels:
            raise UserError(f"--condition goal: {leaf.name} is a choice; a Box of numbers expected")
    achieved, desired = (
        slice(layout.slices[places[0]].start, layout.slices[places[-1]].stop)
        for places in found.values()
    )
    return achieved, desired


class HindsightGoals:
    """Chooses goals in hindsight. Batch i's are the same in every process and after a resume.

    A step's goal is achieved after it in the same episode; the goal of the last step is achieved
    at that step. A window has one goal, uniform over the steps behind it. An episode that is read
    as a whole, or a stream's segment, keeps its goal until it is achieved and then has a new one.

    Args:
        dataset: where batches come from.
        seed: of the choices.

    Raises:
        UserError: see `goal_columns`.
    """

    def __init__(self, dataset: TrajectoryDataset, seed: int) -> None:
        self.dataset, self.seed = dataset, seed
        self.achieved, self.desired = goal_columns(Layout.of(dataset.observation_space))
        offset = dataset.observation_offset
        self._shift = None if offset is None else offset[self.achieved] - offset[self.desired]
        self.batches = 0  # whose goals have been chosen

    def choose(
        self,
        behind: NDArray[np.int64],
        last: NDArray[np.int64],
        kept: NDArray[np.int64] | None = None,
        fresh: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """A goal for each row of the next batch: the dataset's step that achieves it.

        Args:
            behind: int64 `[batch]`, the step behind each row's last one.
            last: int64 `[batch]`, the last step of its episode.
            kept: int64 `[batch]`, earlier goals, which stay where they are not achieved yet.
            fresh: bool `[batch]`, True where an episode begins, so that none stays.
        """
        low = np.minimum(behind, last)
        new = low + (self._generator().random(len(low)) * (last - low + 1)).astype(np.int64)
        return new if kept is None or fresh is None else np.where(fresh | (kept < low), new, kept)

    def of_episodes(self, episodes: NDArray[np.int64]) -> NDArray[np.int64]:
        """A goal for every step of the next batch's whole episodes, int64 `[steps]`."""
        rng, bounds = self._generator(), self.dataset.offsets
        return np.concatenate(
            [_of_episode(rng, int(bounds[i]), int(bounds[i + 1])) for i in episodes.tolist()]
        )

    def _generator(self) -> np.random.Generator:
        """The generator of the next batch's choices."""
        self.batches += 1
        return np.random.default_rng((self.seed, self.batches, 0x60A1))

    def relabel(
        self, observations: torch.Tensor, mask: torch.Tensor, rows: NDArray[np.int64]
    ) -> torch.Tensor:
        """Observations with the goals that some steps achieve as their desired goals.

        Args:
            observations: of a batch, `[batch, time, columns]`.
            mask: bool `[batch, time]`; padded steps stay zero.
            rows: int64 `[batch, 1 or at most time]`, steps of the dataset that achieve the goals.
        """
        if 1 < rows.shape[1] < mask.shape[1]:
            rows = np.pad(rows, ((0, 0), (0, mask.shape[1] - rows.shape[1])))
        goals = self.dataset.observations.take(rows, axis=0)[..., self.achieved]
        if self._shift is not None:
            goals = goals + self._shift
        observations = observations.float()
        given = torch.from_numpy(np.asarray(widened(goals), dtype=np.float32))
        observations[..., self.desired] = torch.where(
            mask[..., None], given, observations[..., self.desired]
        )
        return observations


def _of_episode(rng: np.random.Generator, first: int, end: int) -> NDArray[np.int64]:
    """The step whose achieved goal is each step's goal, of an episode of rows `first` to `end`."""
    rows = np.empty(end - first, dtype=np.int64)
    step = first
    while step < end:
        goal = int(rng.integers(min(step + 1, end - 1), end))
        until = max(goal, step + 1) if goal < end - 1 else end
        rows[step - first : until - first] = goal
        step = until
    return rows

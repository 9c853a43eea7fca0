"""All steps that a learner saw, on the disk in pieces, from snapshot to snapshot."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from aaren_rl.data.trajectory import Trajectory
from aaren_rl.files import read_tensors, remove_leftovers, write_tensors

FIELDS = (
    "observations",
    "next_observations",
    "actions",
    "rewards",
    "terminations",
    "truncations",
)
BUFFER_ACTIONS = "buffer_actions"
Steps = dict[str, NDArray[Any]]
"""By field, `[steps, ...]`; `buffer_actions`, if there, are the learner's own scaling of them."""


class History:
    """Pieces `00000000.safetensors`, each named by its first step.

    Args:
        folder: where they lie; made when needed.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def append(self, start: int, steps: Steps) -> None:
        """Write the steps from number `start` on."""
        tensors = {name: torch.from_numpy(values) for name, values in steps.items()}
        write_tensors(self.folder / f"{start:012d}.safetensors", tensors)

    def cut(self, stop: int) -> None:
        """Forget the steps from number `stop` on, whose snapshot was never finished."""
        if not self.folder.is_dir():
            return
        remove_leftovers(self.folder)
        for start, path in self._pieces():
            if start >= stop:
                path.unlink()

    def mark_truncated(self, step: int) -> None:
        """Say of a step that its episode was cut off after it."""
        start, path = [piece for piece in self._pieces() if piece[0] <= step][-1]
        tensors = read_tensors(path)
        tensors["truncations"][step - start] = True
        write_tensors(path, tensors)

    def pieces(self, start: int, stop: int) -> Iterator[tuple[int, Steps]]:
        """The steps from `start` up to `stop`, in pieces: (number of its first step, steps)."""
        for first, path in self._pieces():
            tensors = read_tensors(path)
            length = len(tensors["rewards"])
            low, high = max(start - first, 0), min(stop - first, length)
            if low < high:
                yield first + low, {k: v[low:high].numpy() for k, v in tensors.items()}

    def steps(self, start: int, stop: int) -> Steps:
        """The steps from `start` up to `stop`, in one; nothing where there are none."""
        parts = [steps for _, steps in self.pieces(start, stop)]
        return {k: np.concatenate([part[k] for part in parts]) for k in parts[0]} if parts else {}

    def episodes(self, stop: int) -> Iterator[Trajectory]:
        """The episodes of the first `stop` steps, with the observation after the last action.

        The last one, unless it ends there by itself, was cut off and is truncated.
        """
        open_parts: list[Steps] = []
        for _, steps in self.pieces(0, stop):
            ends = np.flatnonzero(steps["terminations"] | steps["truncations"]) + 1
            low = 0
            for high in ends.tolist():
                yield _trajectory([*open_parts, _rows(steps, low, high)])
                open_parts, low = [], high
            if low < len(steps["rewards"]):
                open_parts.append(_rows(steps, low, len(steps["rewards"])))
        if open_parts:
            yield _trajectory(open_parts)

    def _pieces(self) -> list[tuple[int, Path]]:
        return sorted((int(path.stem), path) for path in self.folder.glob("[0-9]*.safetensors"))


def _rows(steps: Steps, low: int, high: int) -> Steps:
    return {field: steps[field][low:high] for field in FIELDS}


def _trajectory(parts: list[Steps]) -> Trajectory:
    whole = {field: np.concatenate([part[field] for part in parts]) for field in FIELDS}
    terminated = bool(whole["terminations"][-1])
    return Trajectory(
        observations=np.concatenate([whole["observations"], whole["next_observations"][-1:]]),
        actions=whole["actions"],
        rewards=whole["rewards"],
        terminated=terminated,
        truncated=bool(whole["truncations"][-1]) or not terminated,
    )

"""The episodes that an agent learns from while it plays: the best of the data, then its own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.episode import Trajectory
from aaren_rl.data.mixture import concatenated
from aaren_rl.data.rows import runs_of, side_by_side
from aaren_rl.data.statistics import returns_to_go, timesteps
from aaren_rl.errors import UserError


class ReplayBuffer:
    """Whole episodes, with the returns-to-go that they really had (hindsight relabelling).

    It holds `size` episodes, at first the best ones of the data (`offline`). Of these the worst are
    replaced first, then the oldest of those that were played.
    """

    def __init__(self, offline: TrajectoryDataset, size: int) -> None:
        self._offline, self.size = offline, size
        ascending = np.argsort(offline.episode_returns, kind="stable")
        self._kept: list[int] = ascending[-size:].tolist()
        self._played: TrajectoryDataset | None = None

    def __len__(self) -> int:
        return len(self._kept) + (0 if self._played is None else self._played.num_episodes)

    def add(self, episodes: Sequence[Trajectory]) -> TrajectoryDataset:
        """Add episodes that were played; returns them as data. `UserError` if not all finite."""
        new = TrajectoryDataset.from_episodes(
            episodes,
            name=self._offline.name,
            observation_space=self._offline.observation_space,
            action_space=self._offline.action_space,
            source="an episode that was played",
        )
        if new.observation_offset is not None:
            raise UserError("observations differ too little from each other for float32")
        played = new if self._played is None else concatenated([self._played, new])
        beyond = max(0, len(self._kept) + played.num_episodes - self.size)
        own = max(0, beyond - len(self._kept))
        self._kept = self._kept[beyond - own :]
        self._played = played.subset(range(own, played.num_episodes)) if own else played
        return new

    def data(self) -> TrajectoryDataset:
        """All episodes, those of the data first."""
        parts = [self._offline.subset(self._kept)] if self._kept else []
        return concatenated([*parts, *([] if self._played is None else [self._played])])

    def state_dict(self) -> dict[str, list[int]]:
        """Which episodes of the data are held, as JSON values; `tensors` are those played."""
        return {"kept": list(self._kept)}

    def tensors(self) -> dict[str, Tensor]:
        """The episodes that were played; empty for none."""
        played = self._played
        if played is None:
            return {}
        arrays = {f"observations.{i}": run for i, run in enumerate(runs_of(played.observations))}
        arrays |= {"actions": played.actions, "rewards": played.rewards, "lengths": played.lengths}
        arrays |= {"terminated": played.terminated, "truncated": played.truncated}
        return {name: torch.from_numpy(array) for name, array in arrays.items()}

    def load(self, state: dict[str, list[int]], tensors: dict[str, Tensor]) -> None:
        """Take up what `state_dict` and `tensors` of a buffer of the same data gave."""
        self._kept, self._played = list(state["kept"]), None
        if not tensors:
            return
        arrays = {name: tensor.numpy() for name, tensor in tensors.items()}
        runs = len(runs_of(self._offline.observations))
        offsets = np.concatenate([[0], np.cumsum(arrays["lengths"])])
        rewards = arrays["rewards"]
        self._played = replace(
            self._offline,
            observations=side_by_side([arrays[f"observations.{i}"] for i in range(runs)]),
            actions=arrays["actions"],
            rewards=rewards,
            returns_to_go=returns_to_go(rewards, offsets).astype(np.float32),
            timesteps=timesteps(arrays["lengths"]),
            offsets=offsets,
            terminated=arrays["terminated"],
            truncated=arrays["truncated"],
        )

"""A small task of our own: data in memory, as a file, and an environment that can misbehave."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import numpy as np
from gymnasium import spaces

from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.trajectory import Trajectory

OBSERVATIONS = spaces.Box(-np.inf, np.inf, (3,), np.float32)
ACTIONS = spaces.Box(-1, 1, (1,), np.float32)
SMALL: dict[str, Any] = {
    **{"updates": 20, "batch_size": 8, "context_length": 4, "layers": 1, "width": 16},
    **{"episodes": 2, "log_every": 5, "device": "cpu", "precision": "32", "held_out": 0.0},
}
"""Settings of a run of a fifth of a second."""


class Line(gymnasium.Env[Any, Any]):
    """Ten steps of reward 1. `at_step`, when given, is called with the step's number."""

    observation_space = OBSERVATIONS
    action_space = ACTIONS
    at_step: Callable[[int], float | None] | None = None

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self._steps = 0
        return self._observation(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._steps += 1
        reward = None if Line.at_step is None else Line.at_step(self._steps)
        ended = self._steps >= 10
        return self._observation(), 1.0 if reward is None else reward, ended, False, {}

    def _observation(self) -> Any:
        return self.np_random.normal(size=3).astype(np.float32)


LINE = "tests/Line-v0"
gymnasium.register(LINE, Line, max_episode_steps=100)


def line_data(episodes: int = 8, seed: int = 0) -> TrajectoryDataset:
    """Episodes of ten steps, as a dataset in memory without an environment."""
    rng = np.random.default_rng(seed)
    return TrajectoryDataset.from_episodes(
        [
            Trajectory(
                observations=rng.normal(size=(10, 3)).astype(np.float32),
                actions=rng.uniform(-1, 1, (10, 1)).astype(np.float32),
                rewards=np.ones(10),
                terminated=True,
                truncated=False,
            )
            for _ in range(episodes)
        ],
        name="line",
        observation_space=OBSERVATIONS,
        action_space=ACTIONS,
    )


def line_file(path: Path, seed: int = 0) -> Path:
    """The same episodes in D4RL's layout."""
    data = line_data(seed=seed)
    ends = np.zeros(data.num_steps, bool)
    ends[9::10] = True
    path.parent.mkdir(parents=True, exist_ok=True)
    with h5py.File(path, "w") as file:
        for name in ("observations", "actions", "rewards"):
            file[name] = getattr(data, name)
        file["terminals"], file["timeouts"] = ends, np.zeros_like(ends)
    return path

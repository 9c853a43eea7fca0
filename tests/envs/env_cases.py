"""A small environment that shows which episode it plays, and changes to it that tests need."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env[Any, Any]):
    """Pays its seed at every step, for 1 + seed % 7 steps; shows seed and step."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: Any = spaces.Box(-1, 1, (1,), np.float32)

    def __init__(self) -> None:
        self.closed, self.resets = 0, 0
        self.seed, self.t = 0, 0

    def see(self) -> Any:
        return np.array([self.seed, self.t, 1], np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.resets += 1
        # Where the environments restart by themselves, the next seed is not given.
        self.seed, self.t = self.seed + 100 if seed is None else seed, 0
        return self.see(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        over = self.t >= 1 + self.seed % 7
        return self.see(), float(self.seed), over, False, {}

    def close(self) -> None:
        self.closed += 1


class Endless(Line):
    def step(self, action: Any) -> Any:
        self.t += 1
        return self.see(), 1.0, False, False, {}


class Actor:
    """Remembers where episodes began, and acts with zeros."""

    def __init__(self, num_envs: int) -> None:
        self.num_envs = num_envs
        self.starts: list[list[bool]] = []

    def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
        self.starts.append(np.asarray(dones).tolist())
        # A start is an observation of step 0, but for one step of environments that then restart.
        return np.zeros((self.num_envs, 1), np.float32)

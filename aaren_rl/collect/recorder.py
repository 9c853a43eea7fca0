"""The environment that is learned in, writing down every step, and put back where it stood."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
from numpy.typing import NDArray

from aaren_rl.collect.history import FIELDS, Steps


class Recorder(gymnasium.Wrapper):
    """Keeps the steps since they were last taken away, and how the present episode began.

    An episode of a Gymnasium environment is decided by its generator's state before the reset, the
    seed given to the reset, and the actions. So `restore` can bring the environment, whose own
    state is out of reach, to any step of an episode: it plays the episode's beginning again.

    Attributes:
        steps: recorded in all, over all episodes.
        episode_start: the first step of the present episode.
        observation: what the environment showed last.
    """

    def __init__(self, env: gymnasium.Env[Any, Any]) -> None:
        super().__init__(env)
        self.steps = self.episode_start = 0
        self.observation: Any = None
        self._opening: dict[str, Any] = {}
        self._rows: dict[str, list[Any]] = {field: [] for field in FIELDS}

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Any, dict[str, Any]]:
        """Begin an episode."""
        generator = self.env.unwrapped.np_random.bit_generator.state
        self._opening = {"seed": seed, "generator": generator}
        self.episode_start = self.steps
        self.observation, info = self.env.reset(seed=seed, options=options)
        return self.observation, info

    def step(self, action: Any) -> tuple[Any, Any, bool, bool, dict[str, Any]]:
        """Step, and write the step down."""
        before = self.observation
        after, reward, terminated, truncated, info = self.env.step(action)
        row = (before, after, action, float(reward), bool(terminated), bool(truncated))
        for field, value in zip(FIELDS, row, strict=True):
            self._rows[field].append(np.copy(value))
        self.observation = after
        self.steps += 1
        return after, reward, terminated, truncated, info

    def take(self) -> Steps:
        """The steps since the last call, `[steps, ...]` by field; they are then forgotten here."""
        taken = {field: np.stack(rows) for field, rows in self._rows.items() if rows}
        self._rows = {field: [] for field in FIELDS}
        return taken

    def state(self) -> dict[str, Any]:
        """Where the environment stands, as JSON, with the history's actions to be played again."""
        generator = self.env.unwrapped.np_random.bit_generator.state
        return {
            "steps": self.steps,
            "episode_start": self.episode_start,
            "opening": self._opening,
            "generator": generator,
        }

    def restore(
        self, state: dict[str, Any], actions: NDArray[Any], observations: NDArray[Any]
    ) -> bool:
        """Bring the environment to where `state` was taken.

        Args:
            state: of `state`.
            actions: the present episode's so far, `[steps - episode_start, ...]`.
            observations: what each of these actions led to.

        Returns:
            False where the environment, played again, shows other observations: it is not
            decided by its generator. Then a new episode has begun.
        """
        opening = state["opening"]
        self.env.unwrapped.np_random.bit_generator.state = opening["generator"]
        self.observation, _ = self.env.reset(seed=opening["seed"])
        self.steps, self.episode_start = state["steps"], state["episode_start"]
        self._opening = opening
        same = True
        for action, wanted in zip(actions, observations, strict=True):
            self.observation, _, terminated, truncated, _ = self.env.step(action)
            same = bool(np.array_equal(self.observation, wanted)) and not (terminated or truncated)
            if not same:
                break
        generator = self.env.unwrapped.np_random.bit_generator
        if same and generator.state == state["generator"]:
            return True
        self.reset()
        return False

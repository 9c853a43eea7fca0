"""What the memory tasks have in common: many episodes side by side, in array arithmetic.

A task is written once, for a batch (`VectorMemoryTask`). The single environment (`MemoryTask`) is
a batch of one, so that both give the same episode for the same seed. Neither time nor memory of a
step grows with an episode's length.
"""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.utils import seeding
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import NDArray

from aaren_rl.errors import UserError

NOISE_BLOCK = 256  # steps of noise drawn at once: one call of the generator, not 256


class Lengths:
    """Lengths of episodes: one, or a range to draw from."""

    def __init__(
        self, length: int | Sequence[int], log_uniform: bool, shortest_possible: int
    ) -> None:
        bounds = length if isinstance(length, (list, tuple)) else (length, length)
        if len(bounds) != 2 or not all(isinstance(bound, (int, np.integer)) for bound in bounds):
            raise UserError(f"length {length!r}: a number of steps, or two, expected")
        self.low, self.high = int(bounds[0]), int(bounds[1])
        if not shortest_possible <= self.low <= self.high:
            raise UserError(
                f"length {length!r}: {shortest_possible} steps or more expected, the shorter first"
            )
        self.log_uniform = log_uniform

    def draw(self, generator: np.random.Generator) -> int:
        """The length of the next episode, in steps."""
        if self.low == self.high:
            return self.low
        if not self.log_uniform:
            return int(generator.integers(self.low, self.high, endpoint=True))
        # Each whole number n stands for the interval [n, n + 1).
        drawn = math.exp(generator.uniform(math.log(self.low), math.log(self.high + 1)))
        return min(int(drawn), self.high)


class VectorMemoryTask(VectorEnv[Any, Any, Any]):
    """Episodes of a memory task side by side.

    Actions are Discrete; an episode terminates after exactly its drawn length, whatever the
    actions. There is no time limit.
    """

    def __init__(
        self,
        num_envs: int,
        *,
        observation_size: int,
        choices: int,
        lengths: Lengths,
        noise: float,
        noise_channels: int,
        autoreset_mode: str | AutoresetMode,
    ) -> None:
        self.autoreset_mode = AutoresetMode(autoreset_mode)
        if num_envs < 1:
            raise UserError(f"{num_envs} environments: at least 1 expected")
        if self.autoreset_mode is AutoresetMode.SAME_STEP:
            raise UserError("autoreset_mode SameStep: NextStep or Disabled expected")
        if not (math.isfinite(noise) and noise >= 0):
            raise UserError(f"noise {noise!r}: a standard deviation, 0 or more, expected")
        self.metadata = {"autoreset_mode": self.autoreset_mode}
        self.num_envs = num_envs
        bound = np.inf if noise else 1.0
        self.single_observation_space = spaces.Box(-bound, bound, (observation_size,), np.float32)
        self.single_action_space = spaces.Discrete(choices)
        self.observation_space = batch_space(self.single_observation_space, num_envs)
        self.action_space = batch_space(self.single_action_space, num_envs)
        self._episode_lengths, self.max_episode_steps = lengths, lengths.high
        self.noise = noise
        self.times = np.zeros(num_envs, np.int64)
        self.lengths = np.zeros(num_envs, np.int64)
        self.generators: list[np.random.Generator | None] = [None] * num_envs
        self._blocks = np.zeros((num_envs, NOISE_BLOCK, noise_channels), np.float32)
        self._ended = np.ones(num_envs, bool)  # these need a reset

    @abstractmethod
    def begin(self, index: int, generator: np.random.Generator, options: dict[str, Any]) -> None:
        """Draw what episode `index` hides. Its length is drawn already."""

    @abstractmethod
    def observe(self) -> NDArray[np.float32]:
        """Observations `[num_envs, observation_size]` at `times`; zeros after the last step."""

    @abstractmethod
    def reward(self, actions: NDArray[np.integer]) -> NDArray[np.float64]:
        """What these actions `[num_envs]` earn at `times`: `[num_envs]`."""

    def reset(
        self,
        *,
        seed: int | Sequence[int | None] | None = None,
        options: dict[str, Any] | None = None,
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Start new episodes; see `gymnasium.vector.VectorEnv.reset`.

        The option `reset_mask`, bool `[num_envs]`, chooses the environments to restart, by default
        all; the other options are the task's own. The dictionary is not changed.
        """
        seeds: Sequence[int | None]
        if seed is None or isinstance(seed, (int, np.integer)):
            seeds = [None if seed is None else int(seed) + i for i in range(self.num_envs)]
        else:
            seeds = seed
        if len(seeds) != self.num_envs:
            raise ValueError(f"{len(seeds)} seeds for {self.num_envs} environments")
        options = dict(options or {})
        mask = np.asarray(options.pop("reset_mask", np.ones(self.num_envs, bool)))
        if mask.shape != (self.num_envs,) or mask.dtype != np.bool_:
            raise ValueError(f"reset_mask: bool of shape {(self.num_envs,)} expected")
        for index in np.flatnonzero(mask).tolist():
            if seeds[index] is not None or self.generators[index] is None:
                self.generators[index], _ = seeding.np_random(seeds[index])
            self._begin(index, options)
        self._ended = self._ended & ~mask
        return self.observe(), {}

    def step(
        self, actions: Any
    ) -> tuple[
        NDArray[np.float32],
        NDArray[np.float64],
        NDArray[np.bool_],
        NDArray[np.bool_],
        dict[str, Any],
    ]:
        """Step all environments; see `gymnasium.vector.VectorEnv.step`."""
        actions = np.asarray(actions)
        if actions.shape != (self.num_envs,) or actions.dtype.kind not in "iu":
            raise ValueError(f"actions: integers of shape {(self.num_envs,)} expected")
        restarting = self._ended
        if restarting.any() and self.autoreset_mode is AutoresetMode.DISABLED:
            raise gymnasium.error.ResetNeeded(
                f"environments {np.flatnonzero(restarting).tolist()} have ended: reset them first"
            )
        rewards = self.reward(actions)
        self.times += 1
        terminations = self.times == self.lengths
        if restarting.any():
            for index in np.flatnonzero(restarting).tolist():
                self._begin(index, {})
            rewards[restarting] = 0
            terminations[restarting] = False
        self._ended = terminations
        if self.noise:  # those that have just begun have theirs
            due = (self.times % NOISE_BLOCK == 0) & ~restarting
            self._draw_noise(np.flatnonzero(due))
        no = np.zeros(self.num_envs, bool)
        return self.observe(), rewards, terminations.copy(), no, {}

    def noise_now(self) -> NDArray[np.float32]:
        """The noise of this step, `[num_envs, noise_channels]`."""
        return self._blocks[np.arange(self.num_envs), self.times % NOISE_BLOCK]

    def _begin(self, index: int, options: dict[str, Any]) -> None:
        """Begin episode `index` with the generator that it has."""
        generator = self.generators[index]
        if generator is None:
            raise gymnasium.error.ResetNeeded("the environments have not been reset yet")
        self.times[index] = 0
        self.lengths[index] = self._episode_lengths.draw(generator)
        self.begin(index, generator, options)
        if self.noise:
            self._draw_noise(np.array([index]))

    def _draw_noise(self, indices: NDArray[np.integer]) -> None:
        """Draw the noise of the next `NOISE_BLOCK` steps of these environments."""
        for index in indices.tolist():
            generator, block = self.generators[index], self._blocks[index]
            assert generator is not None
            generator.standard_normal(dtype=np.float32, out=block)
            block *= self.noise


class MemoryTask(gymnasium.Env[Any, Any]):
    """One episode of a memory task at a time: a batch of one."""

    metadata = {"render_modes": []}  # noqa: RUF012, Gymnasium declares it so
    vector_form: ClassVar[type[VectorMemoryTask]]

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        if render_mode is not None:
            raise UserError(f"render mode {render_mode!r}: a memory task has no pictures")
        self.render_mode = None
        self.batch = self.vector_form(1, autoreset_mode=AutoresetMode.DISABLED, **options)
        self.max_episode_steps = self.batch.max_episode_steps
        self.observation_space = self.batch.single_observation_space
        self.action_space = self.batch.single_action_space

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[NDArray[np.float32], dict[str, Any]]:
        """Begin a new episode; see `gymnasium.Env.reset`."""
        super().reset(seed=seed)
        self.batch.generators[0] = self.np_random
        observations, info = self.batch.reset(options=options)
        return observations[0], info

    def step(self, action: Any) -> tuple[NDArray[np.float32], float, bool, bool, dict[str, Any]]:
        """One step; see `gymnasium.Env.step`."""
        shown, rewards, terminations, truncations, info = self.batch.step([action])
        return shown[0], float(rewards[0]), bool(terminations[0]), bool(truncations[0]), info

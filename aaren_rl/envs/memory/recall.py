"""Pairs of a key and a value, shown at random steps and queried at the end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from aaren_rl.envs.memory.task import Lengths, MemoryTask, VectorMemoryTask
from aaren_rl.errors import UserError

RECALL = "aaren/Recall-v0"
WAIT = 0


class VectorRecall(VectorMemoryTask):
    """Many recall tasks side by side; the task is described at `Recall`."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: int | Sequence[int] = (20, 120),
        log_uniform: bool = False,
        pairs: int = 4,
        values: int = 2,
        noise: float = 0.0,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        if pairs < 1:
            raise UserError(f"pairs {pairs!r}: at least 1 expected")
        if values < 2:
            raise UserError(f"values {values!r}: at least 2 expected")
        super().__init__(
            num_envs,
            observation_size=pairs + values + 2,
            choices=values + 1,
            lengths=Lengths(length, log_uniform, shortest_possible=2 * pairs),
            noise=noise,
            noise_channels=pairs + values,
            autoreset_mode=autoreset_mode,
        )
        self.num_pairs, self.num_values = pairs, values
        shape = (num_envs, pairs)
        self.values = np.zeros(shape, np.int64)
        """Value of each key."""
        self.shown = np.zeros(shape, np.int64)
        """The keys in the order in which they are shown."""
        self.asked = np.zeros(shape, np.int64)
        """The keys in the order in which they are asked for."""
        self.moments = np.zeros(shape, np.int64)
        """When they are shown, ascending."""

    def begin(self, index: int, generator: np.random.Generator, options: dict[str, Any]) -> None:
        """Draw values, both orders and the moments."""
        pairs = self.num_pairs
        self.values[index] = generator.integers(self.num_values, size=pairs)
        self.shown[index] = generator.permutation(pairs)
        self.asked[index] = generator.permutation(pairs)
        before_questions = int(self.lengths[index]) - pairs
        moments = generator.choice(before_questions, pairs, replace=False, shuffle=False)
        self.moments[index] = np.sort(moments)

    def observe(self) -> NDArray[np.float32]:
        """See `Recall`."""
        pairs = self.num_pairs
        channels = pairs + self.num_values
        seen = np.zeros((self.num_envs, channels + 2), np.float32)
        at_moment = self.moments == self.times[:, None]
        showing = at_moment.any(axis=1)
        question = self.times - (self.lengths - pairs)
        if self.noise:
            blank = ~showing & (question < 0)
            np.multiply(self.noise_now(), blank[:, None], out=seen[:, :channels])
        rows, places = np.nonzero(at_moment)
        if len(rows):
            keys = self.shown[rows, places]
            seen[rows, :channels] = -1
            seen[rows, keys] = 1
            seen[rows, pairs + self.values[rows, keys]] = 1
            seen[rows, -2] = 1
        rows = np.flatnonzero((question >= 0) & (question < pairs))
        if len(rows):
            seen[rows, :pairs] = -1
            seen[rows, self.asked[rows, question[rows]]] = 1
            seen[rows, -1] = 1
        return seen

    def reward(self, actions: NDArray[np.integer]) -> NDArray[np.float64]:
        """1 / pairs for a right answer."""
        question = self.times - (self.lengths - self.num_pairs)
        rewards = np.zeros(self.num_envs)
        rows = np.flatnonzero((question >= 0) & (question < self.num_pairs))
        if len(rows):
            keys = self.asked[rows, question[rows]]
            right = actions[rows] == 1 + self.values[rows, keys]
            rewards[rows] = right / self.num_pairs
        return rewards


class Recall(MemoryTask):
    """Recall: key-value pairs are shown at random moments; at the end each key's value is asked.

    Registered as `aaren/Recall-v0`. An episode of length n ends with `pairs` questions, one a step.
    Before them, in the first n - `pairs` steps, each key is shown once with its value, all at
    different moments, drawn uniformly, in random order; the other steps are blank. The values are
    independent of each other (two keys may have the same), the questions come in another random
    order. Observations, float32 `[pairs + values + 2]`:

    - `0 .. pairs - 1`: 1 for the key that is shown or asked for and -1 for the others. On blank
      steps zeros, or noise.
    - `pairs .. pairs + values - 1`: 1 for the value that is shown and -1 for the others. With a
      question zeros, on blank steps zeros, or noise.
    - `pairs + values`: 1 where a pair is shown, else 0.
    - `pairs + values + 1`: 1 where a key is asked for, else 0.

    Actions, Discrete(values + 1): 0 waits, 1 + v answers v. Before the questions any action will
    do. Each right answer earns 1 / `pairs`, all else 0: the return is the share of right answers.
    The last question's answer ends the episode; what is observed after it is zeros.

    Without memory the mean return is at most 1 / values.

    Args:
        length: steps of an episode, at least twice the pairs; or (shortest, longest), drawn at
            each reset.
        log_uniform: draw the length log-uniformly, not uniformly.
        pairs: how many keys, each with a value.
        values: how many values there are.
        noise: standard deviation of Gaussian noise in the keys' and values' channels, on blank
            steps.
    """

    vector_form = VectorRecall


class RecallExpert:
    """Keeps a table of what was shown and reads it when asked: always right.

    Args:
        env: the environments that it will act in, for their number and spaces.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        assert isinstance(env.single_action_space, gymnasium.spaces.Discrete)
        assert env.single_observation_space.shape is not None
        self.num_values = int(env.single_action_space.n) - 1
        self.num_pairs = env.single_observation_space.shape[0] - self.num_values - 2
        self.table = np.zeros((env.num_envs, self.num_pairs), np.int64)

    def act(
        self,
        observations: NDArray[np.float32],
        rewards: NDArray[np.float64] | None = None,
        dones: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Actions `[num_envs]` for observations `[num_envs, pairs + values + 2]`."""
        keys = observations[:, : self.num_pairs].argmax(axis=1)
        values = observations[:, self.num_pairs : -2].argmax(axis=1)
        shown = np.flatnonzero(observations[:, -2] > 0.5)
        self.table[shown, keys[shown]] = values[shown]
        known = self.table[np.arange(len(keys)), keys]
        return np.where(observations[:, -1] > 0.5, 1 + known, WAIT)


gymnasium.register(
    id=RECALL,
    entry_point="aaren_rl.envs.memory.recall:Recall",
    vector_entry_point="aaren_rl.envs.memory.recall:VectorRecall",
)

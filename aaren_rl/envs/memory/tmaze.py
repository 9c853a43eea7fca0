"""A corridor with a cue at its beginning and a choice at its end."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import gymnasium
import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from numpy.typing import NDArray

from aaren_rl.envs.memory.task import Lengths, MemoryTask, VectorMemoryTask
from aaren_rl.errors import UserError

PASSIVE_TMAZE = "aaren/PassiveTMaze-v0"
MOVE_ON = 0


class VectorPassiveTMaze(VectorMemoryTask):
    """Many passive T-mazes side by side; the task is described at `PassiveTMaze`."""

    def __init__(
        self,
        num_envs: int = 1,
        *,
        length: int | Sequence[int] = (5, 120),
        log_uniform: bool = False,
        cues: int = 2,
        noise: float = 0.0,
        autoreset_mode: str | AutoresetMode = AutoresetMode.NEXT_STEP,
    ) -> None:
        if cues < 2:
            raise UserError(f"cues {cues!r}: at least 2 expected")
        super().__init__(
            num_envs,
            observation_size=cues + 2,
            choices=cues + 1,
            lengths=Lengths(length, log_uniform, shortest_possible=2),
            noise=noise,
            noise_channels=cues,
            autoreset_mode=autoreset_mode,
        )
        self.num_cues = cues
        self.cues = np.zeros(num_envs, np.int64)

    def begin(self, index: int, generator: np.random.Generator, options: dict[str, Any]) -> None:
        """Draw the cue; the option `cue` (one, or one an environment) puts another in its place."""
        cue = int(generator.integers(self.num_cues))
        if "cue" in options:
            cue = int(np.broadcast_to(options["cue"], self.num_envs)[index])
            if not 0 <= cue < self.num_cues:
                raise UserError(f"option cue {cue}: 0 to {self.num_cues - 1} expected")
        self.cues[index] = cue

    def observe(self) -> NDArray[np.float32]:
        """See `PassiveTMaze`."""
        last = self.lengths - 1
        seen = np.zeros((self.num_envs, self.num_cues + 2), np.float32)
        if self.noise:
            corridor = (self.times > 0) & (self.times < last)
            np.multiply(self.noise_now(), corridor[:, None], out=seen[:, : self.num_cues])
        first = np.flatnonzero(self.times == 0)
        if len(first):
            seen[first, : self.num_cues] = -1
            seen[first, self.cues[first]] = 1
            seen[first, -2] = 1
        seen[:, -1] = self.times == last
        return seen

    def reward(self, actions: NDArray[np.integer]) -> NDArray[np.float64]:
        """1 for the right choice at the junction."""
        right = (self.times == self.lengths - 1) & (actions == self.cues + 1)
        return right.astype(np.float64)


class PassiveTMaze(MemoryTask):
    """A passive T-maze: the cue is seen at the first step, the choice is made at the last.

    Registered as `aaren/PassiveTMaze-v0`. Observations, float32 `[cues + 2]`:

    - `0 .. cues - 1`: at the first step 1 for the cue and -1 for the others. In the corridor zeros,
      or noise. At the junction zeros.
    - `cues`: 1 at the first step, else 0.
    - `cues + 1`: 1 at the junction, else 0.

    Actions, Discrete(cues + 1): 0 moves on, 1 + k chooses side k. The corridor is passive: any
    action moves on. At the junction, which is the last step, any action ends the episode. Side k is
    right if cue k was shown: reward 1. All other rewards are 0: the return is the success. An
    episode of length n has n observations with an action: the cue's, n - 2 of the corridor and the
    junction's. What is observed after the last action is zeros.

    Without memory of the cue the mean return is at most 1 / cues. Actions in the corridor could
    store the cue, but the expert, which always moves on, does not demonstrate that.

    Args:
        length: steps of an episode, at least 2; or (shortest, longest), drawn at each reset.
        log_uniform: draw the length log-uniformly, not uniformly.
        cues: how many cues, and as many sides.
        noise: standard deviation of Gaussian noise in the cue's channels, in the corridor.
    """

    vector_form = VectorPassiveTMaze


class PassiveTMazeExpert:
    """Remembers the cue and chooses its side: always right.

    Args:
        env: the environments that it will act in, for their number and spaces.
    """

    def __init__(self, env: VectorEnv[Any, Any, Any]) -> None:
        assert isinstance(env.single_action_space, gymnasium.spaces.Discrete)
        self.num_cues = int(env.single_action_space.n) - 1
        self.cues = np.zeros(env.num_envs, np.int64)

    def act(
        self,
        observations: NDArray[np.float32],
        rewards: NDArray[np.float64] | None = None,
        dones: NDArray[np.bool_] | None = None,
    ) -> NDArray[np.int64]:
        """Actions `[num_envs]` for observations `[num_envs, cues + 2]`; the rest is not needed."""
        shown = observations[:, : self.num_cues].argmax(axis=1)
        self.cues = np.where(observations[:, -2] > 0.5, shown, self.cues)
        return np.where(observations[:, -1] > 0.5, 1 + self.cues, MOVE_ON)


gymnasium.register(
    id=PASSIVE_TMAZE,
    entry_point="aaren_rl.envs.memory.tmaze:PassiveTMaze",
    vector_entry_point="aaren_rl.envs.memory.tmaze:VectorPassiveTMaze",
)

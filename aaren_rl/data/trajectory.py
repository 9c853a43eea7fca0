"""Episodes of experience as flat arrays, checked once when they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike, NDArray

from aaren_rl.data.checking import Checker, shifted
from aaren_rl.data.episode import BLOCK, Recording, Trajectory
from aaren_rl.data.flat import as_trajectory, flat_arrays, flat_episodes
from aaren_rl.data.rows import runs_of, side_by_side, take_runs
from aaren_rl.data.spaces import map_arrays, named, numbers
from aaren_rl.data.statistics import column_statistics, returns_to_go, timesteps
from aaren_rl.environment import Known, known_environment
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout, Leaf
from aaren_rl.robots import normalized

STEP_FIELDS = ("observations", "actions", "rewards", "returns_to_go", "timesteps")


@dataclass(frozen=True, eq=False)
class TrajectoryDataset:
    """Episodes one after the other. Episode i is rows `offsets[i]` to `offsets[i + 1]`.

    >>> ends = [False, False, True, False, False, True]
    >>> data = arl.TrajectoryDataset.from_arrays(np.zeros((6, 2)), np.zeros((6, 1)), range(6), ends)
    >>> data.offsets, data.episode_returns
    (array([0, 3, 6]), array([ 3., 12.]))

    Row t holds the observation in which action t was taken: an observation after the last action
    is not stored, so that all arrays have the same rows. With `load_dataset(..., on="disk")` an
    array with a row for each step is a `Rows`, which reads chosen rows from the disk.

    Attributes:
        name: the dataset's id, or the name of its file.
        observations: `[steps, columns]`, a step's parts flattened side by side in the order of
            `aaren_rl.layout`, choices counted from 0. Float32, minus `observation_offset`; a part
            of a narrow dtype, such as a uint8 image, is kept in it. Where parts differ in dtype
            this is a `Columns`, which reads as one float32 array.
        actions: int64 `[steps]` (Discrete), else float32 `[steps, columns]`, as observations.
        rewards: float64 `[steps]`.
        returns_to_go: float32 `[steps]`, undiscounted: the rewards from this step to the end of
            its episode.
        timesteps: int64 `[steps]`, from 0 within each episode.
        offsets: int64 `[episodes + 1]`.
        terminated: bool `[episodes]`.
        truncated: bool `[episodes]`.
        observation_space: the environment's.
        action_space: the environment's.
        env_spec: how to make the environment, where the dataset says so.
        reference_scores: returns that count as 0 and 100, or None.
        observation_offset: float64 `[observation_size]`, subtracted from the observations because
            float32 could not tell them apart; None for nothing. In acting it must be subtracted, in
            float64, from the environment's observations.
    """

    name: str
    observations: NDArray[Any] = field(repr=False)
    actions: NDArray[Any] = field(repr=False)
    rewards: NDArray[np.float64] = field(repr=False)
    returns_to_go: NDArray[np.float32] = field(repr=False)
    timesteps: NDArray[np.int64] = field(repr=False)
    offsets: NDArray[np.int64] = field(repr=False)
    terminated: NDArray[np.bool_] = field(repr=False)
    truncated: NDArray[np.bool_] = field(repr=False)
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    env_spec: EnvSpec | None = field(default=None, repr=False)
    reference_scores: tuple[float, float] | None = None
    observation_offset: NDArray[np.float64] | None = field(default=None, repr=False)

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Trajectory | Mapping[str, Any]],
        *,
        name: str = "data",
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        env: Any = None,
        env_spec: EnvSpec | None = None,
        reference_scores: tuple[float, float] | None = None,
        source: str | None = None,
    ) -> TrajectoryDataset:
        """A dataset of episodes in memory.

            >>> episode = {"observations": [[0.0], [0.5], [1.0]], "actions": [0, 1]}
            >>> episode |= {"rewards": [0.0, 1.0], "terminated": True}
            >>> data = TrajectoryDataset.from_episodes([episode])
            >>> data.action_space
            Discrete(2)

        Spaces that are not given come from `env`. Without it observations are a Box of any
        numbers; actions are Discrete where there is one integer a step, and else a Box from -1 to
        1, or as wide as the data where they go beyond (with a warning). Both may be dictionaries
        or tuples of arrays, or lists with a dictionary for each step.

        Args:
            episodes: a `Trajectory` each, or a dictionary with `observations` (T or T + 1 rows),
                `actions` and `rewards` (T rows) and how it ended: `terminations` and
                `truncations`, as Gymnasium calls them, `terminals` and `timeouts`, or
                `terminated` and `truncated`, one flag or one a step. An episode with no flag set
                counts as truncated.
            name: the dataset's id.
            observation_space: of one observation.
            action_space: of one action. Actions beyond a Box widen it, with a warning, unless
                `env` or `env_spec` say that it is the environment's: they are then clipped.
            env: the environment that the data come from: a Gymnasium id, a spec, a function that
                makes one, or an environment. Its spaces win over those given.
            env_spec: how to make the environment; `env`'s own if left out.
            reference_scores: returns that count as 0 and 100.
            source: the file that error messages name; `name` if left out.

        Raises:
            UserError: no episodes, an empty one, lengths or shapes that do not fit, NaN or
                infinity; the message names source, episode and field.
        """
        where = source or name
        found = (
            each if isinstance(each, Trajectory) else as_trajectory(f"{where}: episode {i}", each)
            for i, each in enumerate(episodes)
        )
        recording = Recording(
            name=name,
            episodes=lambda: iter(found),
            kind="episodes in memory",
            where=where,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=env_spec,
            reference_scores=reference_scores,
        )
        return cls.from_recording(recording, None if env is None else known_environment(env))

    @classmethod
    def from_arrays(
        cls,
        observations: Any,
        actions: Any,
        rewards: Any,
        terminals: Any,
        timeouts: Any = None,
        *,
        name: str = "data",
        observation_space: spaces.Space[Any] | None = None,
        action_space: spaces.Space[Any] | None = None,
        env: Any = None,
        reference_scores: tuple[float, float] | None = None,
        episode_length: int | None = None,
    ) -> TrajectoryDataset:
        """A dataset of flat arrays, which hold all steps of all episodes one after the other.

            >>> ends = [False, False, True, False, False, True]
            >>> data = TrajectoryDataset.from_arrays(np.zeros((6, 2)), np.ones(6), np.ones(6), ends)
            >>> data.lengths
            array([3, 3])

        An episode ends where `terminals` (terminations) or `timeouts` (truncations) is set.

        Args:
            observations: `[steps, ...]`, or a dictionary or tuple of such arrays. Row t is what
                was seen before action t.
            actions: `[steps, ...]`, or likewise; integers `[steps]` are choices.
            rewards: `[steps]`.
            terminals: bool `[steps]`, set at the last step of an episode that ended.
            timeouts: bool `[steps]`, set at the last step of an episode that was cut short.
            name: the dataset's id.
            observation_space: as in `from_episodes`, like the two that follow.
            action_space: of one action.
            env: the environment that the data come from.
            reference_scores: returns that count as 0 and 100.
            episode_length: cut an episode after so many steps besides.

        Raises:
            UserError: lengths or shapes that do not fit, NaN or infinity.
        """
        arrays = {"observations": observations, "actions": actions, "rewards": rewards}
        arrays |= {"terminals": terminals, "timeouts": timeouts}
        for key, values in arrays.items():
            with named(f"{name}: {key}"):
                arrays[key] = None if values is None else map_arrays(numbers, values)
        arrays = flat_arrays(name, "a dataset", arrays)
        return cls.from_episodes(
            flat_episodes(name, arrays, episode_length),
            name=name,
            observation_space=observation_space,
            action_space=action_space,
            env=env,
            reference_scores=reference_scores,
        )

    @classmethod
    def from_recording(cls, recording: Recording, known: Known | None = None) -> TrajectoryDataset:
        """Read a recording into memory; errors as `from_episodes`.

        `known` holds the environment's own spaces, where it was asked for them.
        """
        checker = Checker(recording, known)
        blocks = list(checker.blocks(recording.episodes()))
        observation_space, action_space = checker.spaces()
        offset = checker.observation_offset()
        fields = ("lengths", "rewards", "actions", "terminated", "truncated")
        lengths, rewards, actions, terminated, truncated = (
            np.concatenate([getattr(block, field) for block in blocks]) for field in fields
        )
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        row = int(offsets[-1])
        runs = [np.empty((row, each.shape[1]), each.dtype) for each in shifted(blocks[0], offset)]
        while blocks:  # each is released when it is copied
            block = blocks.pop()
            first = row - len(block.rewards)
            for run, values in zip(runs, shifted(block, offset), strict=True):
                run[first:row] = values
            row = first
        return cls(
            name=recording.name,
            observations=side_by_side(runs),
            actions=actions,
            rewards=rewards,
            returns_to_go=returns_to_go(rewards, offsets).astype(np.float32),
            timesteps=timesteps(lengths),
            offsets=offsets,
            terminated=terminated,
            truncated=truncated,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=recording.env_spec or (known.spec if known else None),
            reference_scores=recording.reference_scores,
            observation_offset=offset,
        )

    @property
    def num_episodes(self) -> int:
        """Number of episodes."""
        return len(self.offsets) - 1

    @property
    def num_steps(self) -> int:
        """Number of steps of all episodes together."""
        return int(self.offsets[-1])

    @property
    def lengths(self) -> NDArray[np.int64]:
        """Steps of each episode, int64 `[episodes]`."""
        return np.diff(self.offsets)

    @property
    def max_episode_length(self) -> int:
        """Steps of the longest episode."""
        return int(self.lengths.max())

    @cached_property
    def episode_returns(self) -> NDArray[np.float64]:
        """Sum of rewards of each episode, float64 `[episodes]`."""
        offsets, pieces, first = self.offsets, [], 0
        while first < self.num_episodes:  # neighbouring episodes, about `BLOCK` steps together
            last = max(int(np.searchsorted(offsets, offsets[first] + BLOCK)), first + 1)
            last = min(last, self.num_episodes)
            start = offsets[first]
            rewards = self.rewards[start : offsets[last]]
            pieces.append(np.add.reduceat(rewards, offsets[first:last] - start))
            first = last
        return np.concatenate(pieces)

    def observation_statistics(
        self, *, pixels: bool = True
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation over all steps, float32 `[columns]` each.

        The deviation is made to be divided by: it is 1 for a column that is constant, see
        `column_statistics`. Choices have a mean of 0 and a deviation of 1.

        Args:
            pixels: also of images, which takes long where they are many; else 0 and 1.
        """
        return self._statistics(
            self.observations,
            self.observation_space,
            lambda leaf: not leaf.tabled and (pixels or not leaf.is_image),
        )

    def action_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of actions that are not Discrete."""
        return self._statistics(self.actions, self.action_space, lambda leaf: not leaf.levels)

    def _columns(self, array: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and deviation of each column of an array with a row for each step."""
        return column_statistics(array)

    def _statistics(
        self, array: Any, space: spaces.Space[Any], which: Callable[[Leaf], bool]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Statistics of the columns of chosen leaves; 0 and 1 for the others."""
        wanted, first = Layout.of(space).mask(which), 0
        mean, std = np.zeros(len(wanted), np.float32), np.ones(len(wanted), np.float32)
        for run in runs_of(array):
            columns = slice(first, first + run.shape[1])
            first = columns.stop
            if wanted[columns].any():
                found = self._columns(run)
                mean[columns] = np.where(wanted[columns], found[0], 0)
                std[columns] = np.where(wanted[columns], found[1], 1)
        return mean, std

    def returns_to_go_statistics(self) -> tuple[float, float]:
        """The same of the returns-to-go of all steps."""
        mean, std = column_statistics(self.returns_to_go)
        return float(mean), float(std)

    @property
    def largest_return_to_go(self) -> float:
        """The largest return-to-go of all steps."""
        starts = range(0, self.num_steps, BLOCK)
        return max(float(self.returns_to_go[start : start + BLOCK].max()) for start in starts)

    def normalized_score(self, returns: ArrayLike) -> NDArray[np.float64] | None:
        """D4RL's scores of undiscounted returns of any shape, or None without reference scores."""
        if self.reference_scores is None:
            return None
        return normalized(np.asarray(returns, dtype=np.float64), self.reference_scores)

    def episode(self, index: int) -> Trajectory:
        """Episode `index`, its arrays views into this dataset's (T observations, not T + 1)."""
        index = range(self.num_episodes)[index]
        rows = slice(int(self.offsets[index]), int(self.offsets[index + 1]))
        return Trajectory(
            observations=self.observations[rows],
            actions=self.actions[rows],
            rewards=self.rewards[rows],
            terminated=bool(self.terminated[index]),
            truncated=bool(self.truncated[index]),
        )

    def subset(self, indices: Sequence[int] | NDArray[np.integer]) -> TrajectoryDataset:
        """A dataset of these episodes, in this order.

        Raises:
            UserError: no indices.
        """
        chosen = np.asarray(indices, dtype=np.int64)
        if chosen.size == 0:
            raise UserError(f"{self.name}: a subset of no episodes; at least one expected")
        first, lengths = self.offsets[chosen], self.lengths[chosen]
        steps = {name: take_runs(getattr(self, name), first, lengths) for name in STEP_FIELDS}
        return replace(
            self,
            **steps,
            offsets=np.concatenate([[0], np.cumsum(lengths)]),
            terminated=self.terminated[chosen],
            truncated=self.truncated[chosen],
        )

    def top_percent(self, percent: float) -> TrajectoryDataset:
        """The best `percent` of the episodes by return (at least one), in their own order.

        Raises:
            UserError: `percent` is not above 0 and at most 100.
        """
        if not 0 < percent <= 100:
            raise UserError(f"top percent {percent}: above 0 and at most 100 expected")
        if percent == 100:
            return self
        count = math.ceil(self.num_episodes * percent / 100)
        best_first = np.argsort(-self.episode_returns, kind="stable")
        return self.subset(np.sort(best_first[:count]))

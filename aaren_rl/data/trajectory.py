"""Episodes of experience as flat arrays, checked once when they are read."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import ArrayLike, NDArray

from aaren_rl.data.disk_rows import DiskRows
from aaren_rl.data.spaces import flat_size, flatten_batch, numbers
from aaren_rl.errors import UserError

CONSTANT_STD = 1e-8  # a column counts as constant up to this standard deviation,
CONSTANT_ROUNDINGS = 4 * float(np.finfo(np.float32).eps)  # or up to this share of its mean
BLOCK = 1 << 14  # rows that are looked at together where all rows are


@dataclass(frozen=True, eq=False)
class Trajectory:
    """One episode of T steps, as it was recorded or as a view into a dataset.

    Attributes:
        observations: `[T + 1 or T, ...]`; the row after the last action is kept by some formats.
        actions: `[T, ...]`.
        rewards: `[T]`.
        terminated: the episode ended in a final state.
        truncated: the episode was cut short, by a time limit or by the end of the recording.
    """

    observations: Any
    actions: NDArray[Any]
    rewards: NDArray[Any]
    terminated: bool
    truncated: bool


@dataclass(frozen=True, eq=False)
class TrajectoryDataset:
    """Episodes laid end to end. Episode i is rows `offsets[i]` to `offsets[i + 1]`.

    Row t holds the observation in which action t was taken: an observation after the last action
    is not stored, so that the arrays index alike. An array with a row for each step may be a
    `DiskRows` instead (`load_trajectories(..., on="disk")`).

    Attributes:
        name: the dataset's id, or the name of its file.
        observations: float32 `[steps, observation_size]`, flattened.
        actions: float32 `[steps, action_size]` (Box, flattened) or int64 `[steps]` (Discrete).
        rewards: float64 `[steps]`.
        returns_to_go: float32 `[steps]`, undiscounted: the rewards from this step to the end of
            its episode.
        timesteps: int64 `[steps]`, from 0 within each episode.
        offsets: int64 `[episodes + 1]`.
        terminated: bool `[episodes]`.
        truncated: bool `[episodes]`.
        observation_space: the environment's, before flattening.
        action_space: the environment's, before flattening.
        env_spec: how to make the environment, where the dataset says so.
        reference_scores: returns that count as 0 and 100, or None.
    """

    name: str
    observations: NDArray[np.float32]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    returns_to_go: NDArray[np.float32]
    timesteps: NDArray[np.int64]
    offsets: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]
    observation_space: spaces.Space[Any]
    action_space: spaces.Space[Any]
    env_spec: EnvSpec | None = None
    reference_scores: tuple[float, float] | None = None

    @classmethod
    def from_episodes(
        cls,
        episodes: Iterable[Trajectory],
        *,
        name: str,
        observation_space: spaces.Space[Any],
        action_space: spaces.Space[Any],
        env_spec: EnvSpec | None = None,
        reference_scores: tuple[float, float] | None = None,
        source: str | None = None,
    ) -> TrajectoryDataset:
        """Check raw episodes, flatten them and lay them end to end.

        Args:
            episodes: in the environment's own shapes and dtypes.
            name: the dataset's id.
            observation_space: of one observation.
            action_space: Box, or Discrete from 0.
            env_spec: how to make the environment.
            reference_scores: returns that count as 0 and 100.
            source: the file that error messages name; `name` if left out.

        Raises:
            UserError: no episodes, an empty one, lengths or shapes that do not fit, NaN or
                infinity; the message names source, episode and field.
        """
        checked = list(checked_episodes(episodes, source or name, observation_space, action_space))
        lengths = np.array([len(episode.rewards) for episode in checked], dtype=np.int64)
        offsets = np.concatenate([[0], np.cumsum(lengths)])
        rewards = np.concatenate([episode.rewards for episode in checked])
        return cls(
            name=name,
            observations=np.concatenate([episode.observations for episode in checked]),
            actions=np.concatenate([episode.actions for episode in checked]),
            rewards=rewards,
            returns_to_go=returns_to_go(rewards, offsets).astype(np.float32),
            timesteps=np.arange(offsets[-1]) - np.repeat(offsets[:-1], lengths),
            offsets=offsets,
            terminated=np.array([episode.terminated for episode in checked]),
            truncated=np.array([episode.truncated for episode in checked]),
            observation_space=observation_space,
            action_space=action_space,
            env_spec=env_spec,
            reference_scores=reference_scores,
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
        pieces = [
            np.add.reduceat(self.rewards[start:stop], self.offsets[first:last] - start)
            for first, last, start, stop in _blocks_of_episodes(self.offsets)
        ]
        return np.concatenate(pieces)

    def observation_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Mean and standard deviation over all steps, float32 `[observation_size]` each.

        The deviation is made to be divided by: it is 1 for a column that is constant, see
        `column_statistics`.
        """
        return column_statistics(self.observations)

    def action_statistics(self) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """The same of Box actions, float32 `[action_size]` each."""
        return column_statistics(self.actions)

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
        """D4RL's score, 100 (return - minimum) / (maximum - minimum), or None without references.

        Args:
            returns: undiscounted returns, of any shape.
        """
        if self.reference_scores is None:
            return None
        lowest, highest = self.reference_scores
        return 100.0 * (np.asarray(returns, dtype=np.float64) - lowest) / (highest - lowest)

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
        return replace(
            self,
            **_rows_of_episodes(self, chosen),
            offsets=np.concatenate([[0], np.cumsum(self.lengths[chosen])]),
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


def column_statistics(rows: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Mean and standard deviation of each column, to standardise by.

    A column counts as constant, and gets a deviation of 1, when its deviation is at most 1e-8, or
    at most four float32 roundings of its mean: that is the noise of a simulator or of float32, not
    information, and dividing by it would make any other value enormous.

    Args:
        rows: float32 `[steps, columns]` or `[steps]`, an array or a `DiskRows`.

    Returns:
        Mean and deviation, float32 `[columns]` or `[]` each.
    """
    starts, steps = range(0, len(rows), BLOCK), len(rows)
    # Deviations from the first row, in float64: they are exactly 0 where a column is constant, and
    # a large mean costs no digits of the deviation.
    first = np.asarray(rows[0:1], dtype=np.float64)[0]
    away = sum((rows[start : start + BLOCK] - first).sum(axis=0) for start in starts) / steps
    mean = first + away
    square = sum(
        ((rows[start : start + BLOCK] - first - away) ** 2).sum(axis=0) for start in starts
    )
    std = np.sqrt(square / steps)
    constant = std <= np.maximum(CONSTANT_STD, CONSTANT_ROUNDINGS * np.abs(mean))
    return mean.astype(np.float32), np.where(constant, 1.0, std).astype(np.float32)


Builder = Callable[..., TrajectoryDataset]
"""Makes a dataset of episodes, with the arguments of `TrajectoryDataset.from_episodes`."""


def without_last(episodes: Iterable[Trajectory]) -> Iterator[Trajectory]:
    """All episodes but the last."""
    for episode, _ in pairwise(episodes):
        yield episode


STEP_FIELDS = ("observations", "actions", "rewards", "returns_to_go", "timesteps")


def _rows_of_episodes(data: TrajectoryDataset, chosen: NDArray[np.int64]) -> dict[str, Any]:
    """The arrays with a row for each step, of these episodes alone, in this order."""
    fields: dict[str, Any] = {field: getattr(data, field) for field in STEP_FIELDS}
    if isinstance(fields["observations"], DiskRows):
        rows = fields["observations"].row_map(data.offsets, chosen)
        return {field: values.with_rows(rows) for field, values in fields.items()}
    numbers_of_rows = np.concatenate(
        [np.arange(data.offsets[i], data.offsets[i + 1]) for i in chosen.tolist()]
    )
    return {field: values[numbers_of_rows] for field, values in fields.items()}


def _blocks_of_episodes(offsets: NDArray[np.int64]) -> Iterator[tuple[int, int, int, int]]:
    """Neighbouring episodes, about `BLOCK` steps together: (first, last + 1, their rows)."""
    first, count = 0, len(offsets) - 1
    while first < count:
        last = int(np.searchsorted(offsets, offsets[first] + BLOCK))
        last = min(max(last, first + 1), count)
        yield first, last, int(offsets[first]), int(offsets[last])
        first = last


def returns_to_go(rewards: NDArray[np.float64], offsets: NDArray[np.int64]) -> NDArray[np.float64]:
    """Undiscounted rewards from each step to its episode's end.

    Args:
        rewards: float64 `[steps]`.
        offsets: int64 `[episodes + 1]`, where episodes begin and end.

    Returns:
        float64 `[steps]`.
    """
    # Each episode is summed on its own: the difference of two running sums over the whole dataset
    # would cost digits that grow with the dataset.
    result = np.empty_like(rewards)
    for start, stop in pairwise(offsets.tolist()):
        result[start:stop] = np.cumsum(rewards[start:stop][::-1])[::-1]
    return result


def checked_episodes(
    episodes: Iterable[Trajectory],
    source: str,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> Iterator[Trajectory]:
    """Raw episodes, each checked and flattened as it comes; see `TrajectoryDataset.from_episodes`.

    Raises:
        UserError: what does not fit in the spaces or an episode, or no episodes.
    """
    _check_spaces(source, observation_space, action_space)
    index = -1
    for index, raw in enumerate(episodes):
        where = f"{source}: episode {index}"
        yield _checked_episode(where, raw, observation_space, action_space)
    if index < 0:
        raise UserError(f"{source}: no episodes; a dataset needs at least one")


def _check_spaces(
    source: str, observation_space: spaces.Space[Any], action_space: spaces.Space[Any]
) -> None:
    """Raise UserError unless agents can work with these spaces."""
    with _named(f"{source}: observations"):
        flat_size(observation_space)
    if isinstance(action_space, spaces.Box):
        return
    if isinstance(action_space, spaces.Discrete) and action_space.start == 0:
        return
    raise UserError(f"{source}: action space {action_space}: Box, or Discrete from 0, expected")


def _checked_episode(
    where: str,
    raw: Trajectory,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
) -> Trajectory:
    """The episode flattened, with T observations, T actions and T rewards; `where` names it."""
    with _named(f"{where}: rewards"):
        rewards = _one_a_step(raw.rewards).astype(np.float64)
    with _named(f"{where}: observations"):
        observations = flatten_batch(observation_space, raw.observations)
    with _named(f"{where}: actions"):
        actions = _flat_actions(action_space, raw.actions)
    steps = len(rewards)
    if steps == 0:
        raise UserError(f"{where}: no steps; an episode needs at least one")
    if len(actions) != steps:
        raise UserError(f"{where}: {len(actions)} actions for {steps} rewards; {steps} expected")
    if len(observations) not in (steps, steps + 1):
        raise UserError(
            f"{where}: {len(observations)} observations for {steps} rewards; "
            f"{steps} or {steps + 1} expected"
        )
    fields: dict[str, NDArray[Any]]
    fields = {"observations": observations, "actions": actions, "rewards": rewards}
    for field, values in fields.items():
        with _named(f"{where}: {field}"):
            _check_finite(values)
    return Trajectory(
        observations=observations[:steps],
        actions=actions,
        rewards=rewards,
        terminated=bool(raw.terminated),
        truncated=bool(raw.truncated),
    )


@contextmanager
def _named(where: str) -> Iterator[None]:
    """Put the place in front of what is wrong there."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{where}: {error}") from None


def _one_a_step(values: Any) -> NDArray[Any]:
    """Numbers of shape `[T]` or `[T, 1]` as `[T]`."""
    array = numbers(values)
    if array.ndim == 0 or array.size != len(array):
        raise UserError(f"shape {list(array.shape)}; one value a step expected")
    return array.reshape(-1)


def _flat_actions(space: spaces.Space[Any], actions: Any) -> NDArray[Any]:
    """Actions as float32 `[T, action_size]` (Box) or int64 `[T]` (Discrete from 0)."""
    if not isinstance(space, spaces.Discrete):
        return flatten_batch(space, actions)
    values = _one_a_step(actions)
    if not np.isin(values, np.arange(space.n)).all():
        raise UserError(f"integers from 0 to {int(space.n) - 1} expected")
    return values.astype(np.int64)


def _check_finite(values: NDArray[Any]) -> None:
    """Raise UserError that names the first row with a NaN or an infinity, if there is one."""
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise UserError(f"NaN or infinity at step {row}; finite numbers expected")

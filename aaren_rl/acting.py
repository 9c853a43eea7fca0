"""The interface of every policy, and the checks of what environments give it. NumPy only."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from aaren_rl.errors import UserError
from aaren_rl.layout import LARGEST_RETURN, Layout, as_array

_UNLIMITED = int(np.iinfo(np.int64).max)


class Policy(ABC):
    """An agent acting in a batch of environments, each with its own past.

    The loop that a robot runs, with a person who may take over and commands that are limited or
    come late:

        policy, reward = agent.policy(num_envs=1), None
        policy.reset()                                   # a new episode at the next `act`
        executed = None
        while running:
            action = policy.act(observe()[None], reward, executed_actions=executed)[0]
            sent = person.command() if person.takes_over() else limits(action)
            robot.send(sent)
            executed, reward = sent[None], np.array([reward_of_this_step()])

    With a delay of one step, the action of the last call is what the robot executes now: keep it,
    and give in `executed_actions` what was executed between the last observation and this one.
    """

    @abstractmethod
    def act(
        self,
        observations: Any,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: Any = None,
    ) -> Any:
        """Choose one action for every environment.

        Args:
            observations: `[num_envs, *observation shape]`, as the environments give them; for Dict
                and Tuple spaces a dictionary or tuple of such arrays.
            rewards: `[num_envs]`, of the last actions; `None` only where every environment starts
                an episode. Not used for an environment that starts one.
            dones: bool `[num_envs]`; true where the last step ended an episode, so that this
                observation is the first of a new one: the past of that environment is forgotten.
            executed_actions: `[num_envs, *action shape]`, the actions really executed since the
                last call, where they differ from those returned; `None` where they do not.

        Returns:
            Actions `[num_envs, *action shape]` inside the action space.

        Raises:
            UserError: for a wrong shape, a number that is not finite, or a reward beyond 1e18; the
                state is unchanged.
        """

    @abstractmethod
    def reset(self, mask: np.ndarray | None = None) -> None:
        """Start a new episode at the next `act`, which ignores its reward.

        Args:
            mask: bool `[num_envs]`, the environments that start; all when `None`. `UserError` for
                another shape.
        """

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of the state carried from step to step, of all environments together."""


def _check_finite(what: str, numbers: np.ndarray) -> None:
    """Raise `UserError` for numbers `[num_envs, size]` that are not finite."""
    finite = np.isfinite(numbers)
    if not finite.all():
        bad = np.flatnonzero(~finite.all(axis=1)).tolist()
        raise UserError(f"{what} of environment {bad} are not finite")


def check_actions(
    actions: object,
    shape: tuple[int, ...],
    choices: tuple[int, int] | None = None,
    layout: Layout | None = None,
) -> np.ndarray:
    """Executed actions, flattened.

    Args:
        actions: `[num_envs, *action shape]`.
        shape: what their shape must be.
        choices: for Discrete actions the first one and how many there are.
        layout: for actions of several choices or parts; only the first number of `shape` counts.

    Returns:
        float32 `[num_envs, action_size]`, or int64 `[num_envs, 1]` (Discrete).

    Raises:
        UserError: for a wrong shape, a number that is not finite, or no choice of the space.
    """
    if layout is not None:
        try:
            array = layout.flatten(actions)
        except UserError as error:
            raise UserError(f"executed_actions: {error}") from None
        if len(array) != shape[0]:
            raise UserError(f"executed_actions must be {shape[0]}, got {len(array)}")
    else:
        array = np.asarray(actions)
        if array.shape != shape:
            raise UserError(f"executed_actions must have shape {shape}, got {array.shape}")
        array = array.reshape(len(array), -1)
    _check_finite("executed_actions", array)
    if choices is None:
        return array.astype(np.float32)
    first, stop = choices[0], sum(choices)
    chosen = array.astype(np.int64)
    if (chosen != array).any() or (chosen < first).any() or (chosen >= stop).any():
        raise UserError(f"executed_actions must be choices from {first} to {stop - 1}, got {array}")
    return chosen


def check_starts(mask: object, num_envs: int) -> np.ndarray:
    """The mask that `Policy.reset` takes, as bool `[num_envs]`; `UserError` for another shape."""
    if mask is None:
        return np.ones(num_envs, bool)
    return _vector("the mask", mask, num_envs).astype(bool)


def check_count(name: str, value: object) -> None:
    """Raise `UserError` unless a number of things is a whole one, at least 1."""
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)):
        raise UserError(f"{name} must be a whole number, got {value!r}")
    if value < 1:
        raise UserError(f"{name} must be at least 1, got {value}")


def _array(name: str, values: object) -> np.ndarray:
    """As an array of numbers; `UserError` for text, `None` and rows of different lengths."""
    try:
        array = as_array(values)
    except ValueError:
        raise UserError(f"{name}: rows of different lengths; equal lengths expected") from None
    if array.dtype.kind not in "biuf":
        raise UserError(f"{name}: values of type {array.dtype}; numbers expected")
    return array


def _vector(name: str, values: object, size: int) -> np.ndarray:
    array = _array(name, values)
    if array.shape != (size,):
        raise UserError(f"{name} must have shape {(size,)}, got {array.shape}")
    return array


def check_targets(
    target_return: float | Sequence[float] | None, own: Sequence[float], num_envs: int
) -> np.ndarray:
    """The return to ask each environment for, float64 `[num_envs]`.

    Args:
        target_return: one for all or one each; the first of `own` when `None`.
        own: the agent's own targets.
        num_envs: number of environments.

    Raises:
        UserError: when there is none, or they are not finite or beyond 1e18, where float32 ends,
            or not one for all or each.
    """
    if target_return is None:
        if not own:
            raise UserError("--target-return is needed: the agent has no target of its own")
        target_return = own[0]
    targets = np.asarray(target_return, dtype=np.float64)
    if targets.shape not in ((), (num_envs,)) or not np.isfinite(targets).all():
        raise UserError(
            f"target returns must be finite, one for all or {num_envs}, got {target_return}"
        )
    if np.abs(targets).max(initial=0) > LARGEST_RETURN:
        raise UserError(f"target returns up to {LARGEST_RETURN:g} expected, got {target_return}")
    return np.broadcast_to(targets, (num_envs,)).copy()


def table_too_short(what: str, steps: int, table: int) -> UserError:
    """The error for an episode that is longer than the learned timestep table."""
    return UserError(
        f"{what} has {steps} steps, but the learned timestep embedding ends at {table}: "
        f"give --max-episode-length {steps}, or --timestep-embedding sinusoidal or none"
    )


def _surely_finite(vector: np.ndarray, zeros: np.ndarray) -> bool:
    """Whether all numbers are finite, in a third of `np.isfinite(vector).all()`'s time."""
    try:
        return bool(np.dot(vector, zeros) == 0)  # NaN if one of them is infinite or NaN
    except RuntimeWarning:  # an invalid product, where warnings are errors
        return False


def _check_rewards(rewards: np.ndarray) -> None:
    """Raise `UserError` for rewards that are not finite, or larger than data may hold."""
    largest = np.abs(rewards).max()
    if not largest <= LARGEST_RETURN:
        if not np.isfinite(largest):
            raise UserError("rewards are not finite")
        raise UserError(f"rewards: numbers up to {LARGEST_RETURN:g} expected, got {largest:g}")


class StepInputs:
    """A step's checked inputs from the environments, in arrays that are reused at every step.

    Args:
        observation: of one environment: the layout of its space, or the shape of a Box.
        targets: returns to ask for, `[num_envs]`.
        table: rows of the learned timestep table; `None` without one.
        offset: subtracted in float64 from each flattened observation, `[observation_size]`; empty
            for none.
        reward_dtype: of `reward`.

    Raises:
        UserError: no environments.

    Attributes:
        observation: float32 `[num_envs, observation_size]`.
        reward: `[num_envs, 1]`, 0 where an episode starts.
        targets: as given.
    """

    def __init__(
        self,
        observation: Layout | tuple[int, ...],
        targets: np.ndarray,
        table: int | None,
        offset: Sequence[float] = (),
        reward_dtype: str = "float64",
    ) -> None:
        size = len(targets)
        if size < 1:
            raise UserError(f"num_envs must be at least 1, got {size}")
        self._layout: Layout | None = None  # of a space that is not a Box
        if isinstance(observation, Layout):
            self._layout = None if observation.is_box else observation
            observation = observation.leaves[0].shape if observation.is_box else observation.shape
        self._offset = np.reshape(offset, observation) if len(offset) else None
        self.targets = targets
        self.observation = np.zeros((size, int(np.prod(observation))), np.float32)
        self.reward = np.zeros((size, 1), reward_dtype)
        self._shape, self._table = (size, *observation), table
        self._starting = np.ones(size, bool)  # environments whose next step starts an episode
        self._none_starting = False
        self._steps_in_table = 0  # steps for which no timestep can leave the table
        # The same memory in other shapes, and zeros to multiply with.
        self._as_given = self.observation.reshape(self._shape)
        self._flat_observation, self._flat_reward = self.observation.ravel(), self.reward.ravel()
        self._zeros = np.zeros(self.observation.size, np.float32)

    def set_observations(self, observations: object) -> None:
        """Check observations, see `Policy.act`, and copy them to `observation`."""
        if self._layout is not None:
            try:
                observations = self._layout.flatten(observations, np.float64)
            except UserError as error:
                raise UserError(f"observations: {error}") from None
        if isinstance(observations, np.ndarray) and observations.dtype.kind == "f":
            array = observations  # the common case
        else:
            array = _array("observations", observations)
        if array.shape != self._shape:
            raise UserError(f"observations must have shape {self._shape}, got {array.shape}")
        self._as_given[...] = array if self._offset is None else array - self._offset
        if not _surely_finite(self._flat_observation, self._zeros):
            _check_finite("observations", self.observation)

    def update(
        self, observations: object, rewards: object, dones: object, timesteps: np.ndarray
    ) -> np.ndarray | None:
        """Check a step's inputs, see `Policy.act`, and copy them to `observation` and `reward`.

        Args:
            observations: `[num_envs, ...]`.
            rewards: `[num_envs]`, or `None` where every environment starts an episode.
            dones: bool `[num_envs]`, or `None` for none.
            timesteps: `[num_envs, 1]`, the next timestep of each environment.

        Returns:
            The environments that start an episode (bool `[num_envs]`), whose state the policy has
            to clear; `None` for none. After a `UserError` the policy must keep its state.
        """
        self.set_observations(observations)
        starts = None
        if (
            self._none_starting
            and isinstance(rewards, np.ndarray)
            and isinstance(dones, np.ndarray)
            and rewards.shape == dones.shape == self._starting.shape
            and rewards.dtype.kind in "biuf"
            and not np.count_nonzero(dones)
        ):  # the common case, in the fewest calls
            self._flat_reward[...] = rewards
        else:
            rewards, starts = self._check_outcome(rewards, dones)
            self._flat_reward[...] = np.where(starts, 0, rewards)
        if not self._flat_reward.dot(self._flat_reward) <= LARGEST_RETURN**2:  # a single call
            _check_rewards(self._flat_reward)
        if self._steps_in_table == 0:
            self._check_table(timesteps[:, 0], starts)
        return starts if starts is not None and starts.any() else None

    def _check_outcome(self, rewards: object, dones: object) -> tuple[np.ndarray, np.ndarray]:
        """Rewards (without a meaning where an episode starts), and the environments that start."""
        starts, size = self._starting, len(self._starting)
        if dones is not None:
            starts = starts | _vector("dones", dones, size).astype(bool)
        if rewards is None:
            if not starts.all():
                raise UserError("rewards are needed after the first step of an episode")
            return np.zeros(size), starts
        return _vector("rewards", rewards, size), starts

    def _check_table(self, timesteps: np.ndarray, starts: np.ndarray | None) -> None:
        if self._table is None:
            self._steps_in_table = _UNLIMITED
            return
        longest = int(timesteps.max() if starts is None else np.where(starts, 0, timesteps).max())
        if longest >= self._table:
            raise table_too_short("the episode that is acted in", longest + 1, self._table)
        self._steps_in_table = self._table - longest

    def reset(self, mask: object) -> None:
        """As `Policy.reset`."""
        self._set_starting(self._starting | check_starts(mask, len(self._starting)))

    def set_timesteps(self, timesteps: np.ndarray) -> None:
        """Continue from a loaded state; `timesteps` as in `update`."""
        self._set_starting(timesteps[:, 0] == 0)

    def _set_starting(self, starting: np.ndarray) -> None:
        self._starting = starting
        self._none_starting = not starting.any()
        self._steps_in_table = 0

    def advance(self) -> None:
        """Called after the step: no environment is at the start of an episode any more."""
        if not self._none_starting:
            self._starting = np.zeros_like(self._starting)
            self._none_starting = True
        self._steps_in_table -= 1

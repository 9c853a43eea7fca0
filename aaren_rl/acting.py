"""What every policy is, and what it takes from environments, checked. Numpy only, no torch."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any

import numpy as np

from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

_NEVER = int(np.iinfo(np.int64).max)


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
            rewards: `[num_envs]`, what the last actions earned; `None` only where every
                environment starts an episode. It counts for nothing in one that starts.
            dones: bool `[num_envs]`; true where the last step ended an episode, so that this
                observation is the first of a new one. That environment alone starts afresh.
            executed_actions: `[num_envs, *action shape]`, what was really done since the last call;
                the policy's past then holds it in place of its own choice. `None`: as chosen.

        Returns:
            Actions `[num_envs, *action shape]` inside the action space.

        Raises:
            UserError: for a wrong shape or a number that is not finite; nothing has changed then.
        """

    @abstractmethod
    def reset(self, mask: np.ndarray | None = None) -> None:
        """Start a new episode at the next `act`; the reward that it is given counts for nothing.

        Args:
            mask: bool `[num_envs]`, the environments that start; all when `None`.

        Raises:
            UserError: for a mask of another shape.
        """

    @property
    @abstractmethod
    def state_bytes(self) -> int:
        """Bytes of everything that goes from one step to the next, all environments together."""


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
        layout: for actions of several choices or parts; their `shape` is not looked at.

    Returns:
        float32 `[num_envs, action_size]`, or int64 `[num_envs, 1]` (Discrete).

    Raises:
        UserError: for a wrong shape, a number that is not finite, or no choice of the space.
    """
    if layout is not None:
        try:
            columns = layout.flatten(actions)
        except UserError as error:
            raise UserError(f"executed_actions: {error}") from None
        if len(columns) != shape[0]:
            raise UserError(f"executed_actions must be {shape[0]}, got {len(columns)}")
        _check_finite("executed_actions", columns)
        return columns
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
    """The environments that `Policy.reset` is to start, bool `[num_envs]`.

    Raises:
        UserError: for a mask of another shape.
    """
    if mask is None:
        return np.ones(num_envs, bool)
    return _vector("the mask", mask, num_envs).astype(bool)


def check_outcome(
    fresh: np.ndarray, rewards: object, dones: object
) -> tuple[np.ndarray, np.ndarray]:
    """What the last step brought.

    Args:
        fresh: bool `[num_envs]`, true for environments that have not begun.
        rewards: `[num_envs]`, or `None` where every environment starts.
        dones: bool `[num_envs]`, or `None` for none.

    Returns:
        Rewards (which mean nothing where an environment starts), and which environments start.

    Raises:
        UserError: for a wrong shape, or a reward that is missing or not finite.
    """
    starts = fresh
    if dones is not None:
        starts = fresh | _vector("dones", dones, len(fresh)).astype(bool)
    if rewards is None:
        if not starts.all():
            raise UserError("rewards are needed after the first step of an episode")
        return np.zeros(len(fresh)), starts
    rewards = _vector("rewards", rewards, len(fresh))
    if not np.isfinite(rewards).all() and not np.isfinite(rewards[~starts]).all():
        raise UserError("rewards are not finite")
    return rewards, starts


def _vector(name: str, values: object, size: int) -> np.ndarray:
    array = np.asarray(values)
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
        UserError: when there is none, or they are not finite, or not one for all or each.
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
    return np.broadcast_to(targets, (num_envs,)).copy()


def beyond_the_table(what: str, steps: int, table: int) -> UserError:
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


class StepInputs:
    """The arrays that a step reads from the environments, always the same ones.

    Args:
        observation: of one environment: the layout of its space, or the shape of a Box.
        targets: returns to ask for, `[num_envs]`.
        table: steps after which the timestep table ends; `None` for no end.
        offset: taken in float64 from each flattened observation, `[observation_size]`; empty for
            nothing.
        reward_dtype: of `reward`.

    Raises:
        UserError: no environments.

    Attributes:
        observation: float32 `[num_envs, observation_size]`.
        reward: `[num_envs, 1]`, 0 where an episode begins.
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
        self._layout: Layout | None = None  # of what is not a Box
        if isinstance(observation, Layout):
            self._layout = None if observation.is_box else observation
            observation = observation.leaves[0].shape if observation.is_box else observation.shape
        self._offset = np.reshape(offset, observation) if len(offset) else None
        self.targets = targets
        self.observation = np.zeros((size, int(np.prod(observation))), np.float32)
        self.reward = np.zeros((size, 1), reward_dtype)
        self._shape, self._table = (size, *observation), table
        self._fresh = np.ones(size, bool)  # environments that have not begun
        self._all_begun = False
        self._sure_steps = 0  # so many can be taken before a timestep could leave the table
        # The same memory in other shapes, and zeros to multiply with.
        self._as_given = self.observation.reshape(self._shape)
        self._flat_observation, self._flat_reward = self.observation.ravel(), self.reward.ravel()
        self._zeros = np.zeros(self.observation.size, np.float32), np.zeros(size, reward_dtype)

    def see(self, observations: object) -> None:
        """Check observations, see `Policy.act`, and fill `observation` alone.

        Raises:
            UserError: for a wrong shape (both are named), a missing part, a choice that there is
                not, or a number that is not finite.
        """
        if self._layout is not None:
            try:
                observations = self._layout.flatten(observations, np.float64)
            except UserError as error:
                raise UserError(f"observations: {error}") from None
        array = np.asarray(observations)
        if array.shape != self._shape:
            raise UserError(f"observations must have shape {self._shape}, got {array.shape}")
        self._as_given[...] = array if self._offset is None else array - self._offset
        if not _surely_finite(self._flat_observation, self._zeros[0]):
            _check_finite("observations", self.observation)

    def take(
        self, observations: object, rewards: object, dones: object, timesteps: np.ndarray
    ) -> np.ndarray | None:
        """Check what came from the environments and fill the arrays.

        Args:
            observations: see `see`.
            rewards: see `check_outcome`.
            dones: see `check_outcome`.
            timesteps: `[num_envs, 1]`, the timestep that follows in each environment.

        Returns:
            The environments that begin an episode (bool `[num_envs]`), `None` for none. The policy
            has to empty their state.

        Raises:
            UserError: for anything that does not fit; the policy must then leave its state alone.
        """
        self.see(observations)
        starts = None
        if (
            self._all_begun
            and isinstance(rewards, np.ndarray)
            and isinstance(dones, np.ndarray)
            and rewards.shape == dones.shape == self._fresh.shape
            and not np.count_nonzero(dones)
        ):  # the common case, in the fewest calls
            self._flat_reward[...] = rewards
        else:
            rewards, starts = check_outcome(self._fresh, rewards, dones)
            self._flat_reward[...] = np.where(starts, 0, rewards)
        if not _surely_finite(self._flat_reward, self._zeros[1]):
            raise UserError("rewards are not finite")
        if self._sure_steps == 0:
            self._look_ahead(timesteps[:, 0], starts)
        return starts if starts is not None and starts.any() else None

    def _look_ahead(self, timesteps: np.ndarray, starts: np.ndarray | None) -> None:
        if self._table is None:
            self._sure_steps = _NEVER
            return
        longest = int(timesteps.max() if starts is None else np.where(starts, 0, timesteps).max())
        if longest >= self._table:
            raise beyond_the_table("the episode that is acted in", longest + 1, self._table)
        self._sure_steps = self._table - longest

    def reset(self, mask: object) -> None:
        """As `Policy.reset`."""
        self._fresh |= check_starts(mask, len(self._fresh))
        self._all_begun = not self._fresh.any()
        self._sure_steps = 0

    def taken(self) -> None:
        """The step was done: all environments have begun."""
        if not self._all_begun:
            self._fresh[...] = False
            self._all_begun = True
        self._sure_steps -= 1

    def jump(self, timesteps: np.ndarray) -> None:
        """The state was set from outside; `timesteps` as in `take`."""
        self._fresh[...] = timesteps[:, 0] == 0
        self._all_begun = not self._fresh.any()
        self._sure_steps = 0

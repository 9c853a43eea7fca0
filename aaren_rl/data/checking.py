"""Recorded episodes checked, flattened, and given spaces where the recording has none.

Spaces come from the environment where one is known, else from what the recording declares, else
from the data. A warning says so where the data do not fit them.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from aaren_rl.data.episode import READ_STEPS, Trajectory, warn_once
from aaren_rl.data.spaces import (
    flat_size,
    flatten_batch,
    join_rows,
    map_arrays,
    named,
    numbers,
)
from aaren_rl.errors import UserError, one_line

ROUNDING = 1e-5  # actions may lie beyond their bounds by this share of them
LOST_SHARE = 1e-3  # of a column's range; float32 may round by no more
LEAST_RANGE = 1e-6  # columns that vary by less are noise, however they are rounded
Space = spaces.Space[Any]


class Known(NamedTuple):
    """What an environment says.

    Attributes:
        observation_space: of one environment.
        action_space: of one environment.
        spec: how to make it, where it can be told.
    """

    observation_space: Space
    action_space: Space
    spec: EnvSpec | None


def known_environment(env: Any) -> Known:
    """The spaces of an environment, which is made and closed if need be.

    Args:
        env: a Gymnasium id, a spec, a function that makes an environment, an environment, or a
            vector environment.

    Raises:
        UserError: it cannot be made.
    """
    made = None
    if isinstance(env, (str, EnvSpec)) or not hasattr(env, "observation_space"):
        make = env if callable(env) else lambda: gymnasium.make(env, disable_env_checker=True)
        try:
            env = made = make()
        except Exception as error:  # whatever the environment raises
            raise UserError(f"environment {env}: cannot be made: {one_line(error)}") from error
    single = "single_" if hasattr(env, "single_observation_space") else ""
    known = Known(
        getattr(env, f"{single}observation_space"),
        getattr(env, f"{single}action_space"),
        getattr(env, "spec", None),
    )
    if made is not None:
        made.close()
    return known


class Block(NamedTuple):
    """Some episodes, one after the other.

    Attributes:
        observations: float32 or float64 `[steps, observation_size]`; float64 where float32 rounds.
        actions: float32 `[steps, action_size]` or int64 `[steps]`.
        rewards: float64 `[steps]`.
        lengths: int64 `[episodes]`.
        terminated: bool `[episodes]`.
        truncated: bool `[episodes]`.
    """

    observations: NDArray[Any]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class Checker:
    """Checks and flattens episodes as they come, and then knows their spaces.

    Args:
        where: the file or dataset, which errors and warnings name.
        observation_space: declared by the recording, or None.
        action_space: declared by the recording, or None.
        known: the environment's own; these win.
        trusted: the declared spaces are the environment's.
    """

    def __init__(
        self,
        where: str,
        observation_space: Space | None = None,
        action_space: Space | None = None,
        *,
        known: Known | None = None,
        trusted: bool = False,
    ) -> None:
        self._where, self._known = where, known
        self._observations = _Observations(where, observation_space, known)
        self._actions = _Actions(where, action_space, known, trusted)

    def blocks(self, episodes: Iterable[Trajectory]) -> Iterator[Block]:
        """The episodes, about `READ_STEPS` steps together.

        Raises:
            UserError: no episodes, an empty one, lengths or shapes that do not fit, NaN or
                infinity; the message names file, episode and field.
        """
        count = 0
        for group in _groups(episodes):
            try:
                block = self._block(group)
            except UserError as error:
                for index, episode in enumerate(group, start=count):
                    with named(f"{self._where}: episode {index}"):
                        self._block([episode])
                raise UserError(f"{self._where}: {error}") from None
            yield block
            count += len(group)
        if count == 0:
            raise UserError(f"{self._where}: no episodes; a dataset needs at least one")

    def spaces(self) -> tuple[Space, Space]:
        """The spaces of observations and actions, after the last block; warns if need be."""
        return self._observations.space, self._actions.final_space()

    def observation_offset(self) -> NDArray[np.float64] | None:
        """What to take from observations before they are stored as float32; None for nothing.

        Float32 holds 7 digits: Unix seconds, 1.7e9, are all the same number in it. Where a column
        loses its differences so, the middle of its range is taken from it.
        """
        return self._observations.offset()

    def _block(self, episodes: Sequence[Trajectory]) -> Block:
        with named("rewards"):
            rewards = [_one_a_step(episode.rewards) for episode in episodes]
            lengths = [len(values) for values in rewards]
            if 0 in lengths:
                raise UserError("no steps; an episode needs at least one")
            all_rewards = np.concatenate(rewards, dtype=np.float64, casting="unsafe")
            _check_finite(all_rewards)
        with named("observations"):
            parts = [
                _first_rows(episode.observations, steps)
                for episode, steps in zip(episodes, lengths, strict=True)
            ]
            observations = self._observations.flat(join_rows(parts))
        with named("actions"):
            for episode, steps in zip(episodes, lengths, strict=True):
                rows = np.shape(episode.actions)[:1]
                if rows != (steps,):
                    raise UserError(f"{rows[0] if rows else 'no'} actions for {steps} rewards; "
                                    f"{steps} expected")
            actions = self._actions.flat(join_rows([np.asarray(e.actions) for e in episodes]))
        terminated = np.array([bool(episode.terminated) for episode in episodes])
        # a recording that stops with neither flag was cut short
        truncated = np.array([bool(episode.truncated) for episode in episodes]) | ~terminated
        return Block(
            observations, actions, all_rewards, np.array(lengths, np.int64), terminated, truncated
        )


class _Observations:
    """Flattens observations, and watches what float32 would round away."""

    def __init__(self, where: str, declared: Space | None, known: Known | None) -> None:
        self._where, self._known = where, known
        if declared is not None:
            with named(f"{where}: observations"):
                flat_size(declared)
        self._declared = declared
        self._space: Space | None = None if known is not None else declared
        self._seen: tuple[NDArray[Any], NDArray[Any], NDArray[Any]] | None = None

    @property
    def space(self) -> Space:
        assert self._space is not None
        return self._space

    def flat(self, values: Any) -> NDArray[Any]:
        """Float32 `[steps, size]`; float64 where float32 would round."""
        if self._space is None:
            self._space = self._choose(values)
        exact: list[bool] = []
        map_arrays(lambda part: exact.append(_exact_in_float32(numbers(part).dtype)), values)
        flat = _flatten(self._space, values, np.float32 if all(exact) else np.float64)
        if flat.dtype == np.float32:
            _check_finite(flat)
            return flat
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            rounded = flat.astype(np.float32)
        _check_finite(rounded)
        lost = np.abs(flat - rounded).max(axis=0)
        seen = lost, flat.min(axis=0), flat.max(axis=0)
        if self._seen is not None:
            before = self._seen
            seen = (
                np.maximum(before[0], seen[0]),
                np.minimum(before[1], seen[1]),
                np.maximum(before[2], seen[2]),
            )
        self._seen = seen
        return flat if lost.any() else rounded

    def _choose(self, values: Any) -> Space:
        """The environment's space where the data fit it, else the declared one, else a Box."""
        own = _any_numbers(values) if self._declared is None else self._declared
        if self._known is None:
            return own
        theirs = self._known.observation_space
        if flat_size(theirs) != flat_size(own):
            raise UserError(
                f"the environment's {theirs} has {flat_size(theirs)} values, the data's {own} has "
                f"{flat_size(own)}; equal numbers expected"
            )
        try:
            _flatten(theirs, values, np.float64)
            return theirs
        except UserError as error:
            warn_once(
                f"{self._where}: observations do not have the form of the environment's {theirs} "
                f"({error}); taken for {own}, the same number of values"
            )
            return own

    def offset(self) -> NDArray[np.float64] | None:
        if self._seen is None:
            return None
        lost, low, high = self._seen
        columns = (lost > LOST_SHARE * (high - low)) & (high - low > LEAST_RANGE)
        if not columns.any():
            return None
        middle = np.where(columns, (low + high) / 2, 0.0)
        place = int(np.flatnonzero(columns)[0])
        warn_once(
            f"{self._where}: observations: float32 cannot tell the values of column {place} apart "
            f"(near {middle[place]:.10g}); {int(columns.sum())} column(s) are stored less the "
            "middle of their range, and agents must take the same from what they see"
        )
        return middle


class _Actions:
    """Flattens actions, and finds out what their bounds are."""

    def __init__(
        self, where: str, declared: Space | None, known: Known | None, trusted: bool
    ) -> None:
        self._where, self._declared = where, declared
        self._environments = None if known is None else known.action_space
        self._trusted = trusted or known is not None
        for space in (declared, self._environments):
            _check_action_space(where, space)
        self._space: Space | None = None  # while None, `flat` has to choose
        self._discrete = self._integers = False
        self._low: NDArray[Any] | None = None
        self._high: NDArray[Any] | None = None
        self._beyond = 0  # steps with an action beyond trusted bounds

    def flat(self, values: NDArray[Any]) -> NDArray[Any]:
        """Float32 `[steps, action_size]` (Box) or int64 `[steps]` (Discrete from 0)."""
        if self._space is None:
            self._space = self._choose(values)
            self._discrete = isinstance(self._space, spaces.Discrete)
        if self._discrete:
            return self._choices(values)
        flat: NDArray[Any] = _flatten(self._space, values, np.float32)
        _check_finite(flat)
        low, high = flat.min(axis=0), flat.max(axis=0)
        self._low = low if self._low is None else np.minimum(self._low, low)
        self._high = high if self._high is None else np.maximum(self._high, high)
        if not self._trusted:
            return flat
        least, most = _bounds(self._space)
        if (low >= least).all() and (high <= most).all():
            return flat
        inside = np.clip(flat, least, most)
        self._beyond += int((np.abs(flat - inside) > _tolerance(inside)).any(axis=1).sum())
        return inside

    def _choose(self, values: NDArray[Any]) -> Space:
        values = numbers(values)
        single = values.size == len(values)
        if self._declared is not None:
            own = self._declared
        elif values.dtype.kind in "bui" and single:
            own = spaces.Discrete(1)  # until all are known
        else:
            self._integers = values.dtype.kind in "bui"
            own = spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)
        theirs = self._environments
        if theirs is None:
            return own
        maybe_choices = self._declared is None and single and isinstance(theirs, spaces.Discrete)
        both_discrete = isinstance(own, spaces.Discrete) and isinstance(theirs, spaces.Discrete)
        same = type(own) is type(theirs) and flat_size(own) == flat_size(theirs)
        if not (maybe_choices or (both_discrete and self._declared is None) or same):
            raise UserError(
                f"the environment takes {theirs}, the data hold {own}; the same kind and size "
                "expected"
            )
        return theirs

    def _choices(self, values: NDArray[Any]) -> NDArray[np.int64]:
        values = _one_a_step(values)
        open_ended = self._declared is None and self._environments is None
        assert isinstance(self._space, spaces.Discrete)
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            right = False
        else:
            most = int(values.max())
            right = values.min() >= 0 and (open_ended or most < self._space.n)
        if not right:
            upper = "" if open_ended else f" to {int(self._space.n) - 1}"
            raise UserError(f"integers from 0{upper} expected")
        if open_ended and most >= self._space.n:
            self._space = spaces.Discrete(most + 1)
        return values.astype(np.int64)

    def final_space(self) -> Space:
        space = self._space
        assert space is not None
        if not isinstance(space, spaces.Box):
            return space
        assert self._low is not None
        assert self._high is not None
        if self._trusted:
            if self._beyond:
                warn_once(
                    f"{self._where}: actions of {self._beyond} steps lie beyond the environment's "
                    f"bounds ({self._reach(space)}); they are clipped to them"
                )
            return space
        if self._declared is not None:
            return self._widened(space)
        return self._found(space)

    def _widened(self, space: spaces.Box) -> spaces.Box:
        """The declared space, with room for the data."""
        least, most = _bounds(space)
        inside = (self._low >= least - _tolerance(least)) & (self._high <= most + _tolerance(most))
        if inside.all():
            return space
        warn_once(
            f"{self._where}: actions lie beyond the declared bounds ({self._reach(space)}), and no "
            "environment is known: the bounds are taken from the data"
        )
        low, high = np.minimum(least, self._low), np.maximum(most, self._high)
        return spaces.Box(low.reshape(space.shape), high.reshape(space.shape), dtype=np.float32)

    def _found(self, space: spaces.Box) -> spaces.Box:
        """Bounds from the data: -1 and 1, or where a column goes beyond, its largest magnitude."""
        assert self._low is not None
        assert self._high is not None
        if self._integers:
            low, high = np.minimum(self._low, 0), np.maximum(self._high, 1)
            kind: Any = np.int64
        else:
            high = np.maximum(np.maximum(np.abs(self._low), np.abs(self._high)), np.float32(1))
            low, kind = -high, np.float32
            if (high > 1 + ROUNDING).any():
                warn_once(
                    f"{self._where}: actions reach {float(high.max()):.6g}; the bounds are taken "
                    "from the data, as no environment is known"
                )
        shape = space.shape
        return spaces.Box(low.reshape(shape).astype(kind), high.reshape(shape).astype(kind),
                          dtype=kind)

    def _reach(self, space: spaces.Box) -> str:
        """The worst column: what its actions reach, and its bounds."""
        assert self._low is not None
        assert self._high is not None
        least, most = _bounds(space)
        place = int(np.argmax(np.maximum(least - self._low, self._high - most)))
        return (
            f"{self._low[place]:.6g} to {self._high[place]:.6g}, allowed {least[place]:.6g} to "
            f"{most[place]:.6g}"
        )


def _groups(episodes: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """Neighbouring episodes, at most `READ_STEPS` steps together, or a single longer one."""
    group: list[Trajectory] = []
    steps = 0
    for episode in episodes:
        length = len(np.atleast_1d(episode.rewards))
        if group and steps + length > READ_STEPS:
            yield group
            group, steps = [], 0
        group.append(episode)
        steps += length
    if group:
        yield group


def _first_rows(observations: Any, steps: int) -> Any:
    """The first T rows of T or T + 1 observations."""

    def first(part: Any) -> NDArray[Any]:
        array = numbers(part)
        rows = len(array) if array.ndim else 0
        if rows not in (steps, steps + 1):
            raise UserError(
                f"{rows} observations for {steps} rewards; {steps} or {steps + 1} expected"
            )
        if array.dtype.kind == "f" and rows > steps and not np.isfinite(array[steps]).all():
            raise UserError(f"NaN or infinity at step {steps}; finite numbers expected")
        return array[:steps]

    return map_arrays(first, observations)


def _exact_in_float32(dtype: np.dtype[Any]) -> bool:
    return bool(np.result_type(dtype, np.float32) == np.float32)


def _flatten(space: Space, values: Any, dtype: type[np.floating[Any]]) -> NDArray[Any]:
    """`flatten_batch`, which also takes rows that are flat already."""
    if isinstance(space, spaces.Box) and not isinstance(values, (dict, tuple)):
        values = numbers(values)
        flat = values.ndim < 3 or len(space.shape) < 2
        if flat and values.size == len(values) * flat_size(space):
            values = values.reshape(len(values), *space.shape)
    return flatten_batch(space, values, dtype)


def _any_numbers(values: Any) -> Space:
    """A Box of any numbers, or a Dict or Tuple of them."""
    if isinstance(values, dict):
        return spaces.Dict({key: _any_numbers(part) for key, part in values.items()})
    if isinstance(values, tuple):
        return spaces.Tuple([_any_numbers(part) for part in values])
    array = numbers(values)
    kind, shape = array.dtype.type, array.shape[1:]
    if array.dtype.kind in "iu":
        limits = np.iinfo(kind)
        return spaces.Box(limits.min, limits.max, shape, kind)
    return spaces.Box(-np.inf, np.inf, shape, kind if array.dtype.kind == "f" else np.float32)


def _check_action_space(where: str, space: Space | None) -> None:
    """Raise UserError unless agents can give actions of this space."""
    if space is None or isinstance(space, spaces.Box):
        return
    if isinstance(space, spaces.Discrete) and space.start == 0:
        return
    raise UserError(f"{where}: action space {space}: Box, or Discrete from 0, expected")


def _bounds(space: Space) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest of each column, float32 `[size]`."""
    assert isinstance(space, spaces.Box)
    return space.low.reshape(-1).astype(np.float32), space.high.reshape(-1).astype(np.float32)


def _tolerance(bounds: NDArray[Any]) -> NDArray[Any]:
    """How far beyond a bound is its rounding."""
    return ROUNDING * np.maximum(1, np.abs(bounds))


def _one_a_step(values: Any) -> NDArray[Any]:
    """Numbers of shape `[T]` or `[T, 1]` as `[T]`."""
    array = numbers(values)
    if array.ndim == 0 or array.size != len(array):
        raise UserError(f"shape {list(array.shape)}; one value a step expected")
    return array.reshape(-1)


def _check_finite(values: NDArray[Any]) -> None:
    """Raise UserError that names the first row with a NaN or an infinity, if there is one."""
    if not np.isfinite(values).all():
        row = int(np.argwhere(~np.isfinite(values))[0][0])
        raise UserError(f"NaN or infinity at step {row}; finite numbers expected")

"""Recorded actions made flat, and the bounds that they are learned within."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.episode import warn_once
from aaren_rl.data.spaces import check_finite, named, numbers, one_a_step, parts_of, shaped
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

ROUNDING = 1e-5  # actions may lie beyond their bounds by this share of them
Space = spaces.Space[Any]


def actions_of(
    where: str, declared: Space | None, environments: Space | None, trusted: bool, values: Any
) -> Actions | ActionParts:
    """What makes these actions flat; arguments as `Actions`'s, and some of the actions."""
    spaces_given = [space for space in (declared, environments) if space is not None]
    composite = [isinstance(space, (spaces.Dict, spaces.Tuple)) for space in spaces_given]
    in_parts = isinstance(values, (dict, tuple))
    if any(each is not in_parts for each in composite):
        words = "; ".join(map(str, spaces_given))
        found = "in parts" if in_parts else "in one array"
        raise UserError(f"{found}, which does not fit {words}")
    kind = ActionParts if in_parts else Actions
    return kind(where, declared, environments, trusted)


class ActionParts:
    """As `Actions`, of a Dict or Tuple: each part has an `Actions` of its own."""

    def __init__(
        self, where: str, declared: Space | None, environments: Space | None, trusted: bool
    ) -> None:
        self._where, self._given, self._trusted = where, (declared, environments), trusted
        self._is_tuple = False
        self._parts: dict[Any, Actions | ActionParts] = {}

    def flat(self, values: Any) -> NDArray[Any]:
        """Float32 `[steps, columns]`, see `aaren_rl.layout`."""
        given = dict(enumerate(values)) if isinstance(values, tuple) else dict(values)
        if not self._parts:
            self._is_tuple = isinstance(values, tuple)
            self._begin(given)
        if given.keys() != self._parts.keys():  # in any order
            raise UserError(f"parts {list(given)}; parts {list(self._parts)} expected")
        columns = []
        for key, part in self._parts.items():
            with named(str(key)):
                flat = part.flat(given[key])
                start = part.first_choice
            columns.append((flat - start)[:, None] if flat.ndim == 1 else flat)
        return np.concatenate(columns, axis=1, dtype=np.float32)

    first_choice = 0

    def _begin(self, given: dict[Any, Any]) -> None:
        own, theirs = (None if each is None else parts_of(each) for each in self._given)
        keys = sorted(given)  # as in `aaren_rl.layout`
        for each in (own, theirs):
            if each is not None and each.keys() != given.keys():
                raise UserError(f"parts {list(given)}; parts {list(each)} expected")
        for key in keys:
            declared, environments = (None if each is None else each[key] for each in (own, theirs))
            where = f"{self._where}: {key}"
            with named(str(key)):
                self._parts[key] = actions_of(
                    where, declared, environments, self._trusted, given[key]
                )

    def final_space(self) -> Space:
        """See `Actions.final_space`."""
        found = {key: part.final_space() for key, part in self._parts.items()}
        return spaces.Tuple(list(found.values())) if self._is_tuple else spaces.Dict(found)


class Actions:
    """Flattens actions as they come, and then knows their space.

    Bounds that the environment is known to have hold: actions beyond them are clipped, as the
    environment would do. Declared bounds of an unknown environment, and those of data without any,
    are as wide as the data. A warning says so.

    Args:
        where: the file or dataset, which errors and warnings name.
        declared: the recording's own space, or None.
        environments: the environment's space, where it was asked; it wins.
        trusted: the declared space is the environment's.
    """

    def __init__(
        self, where: str, declared: Space | None, environments: Space | None, trusted: bool
    ) -> None:
        self._where, self._declared, self._environments = where, declared, environments
        self._trusted = trusted or environments is not None
        self._space: Space | None = None  # while None, `flat` has to choose
        self._discrete = self._integers = False
        self._low: NDArray[Any] | None = None
        self._high: NDArray[Any] | None = None
        self._beyond = 0  # steps with an action beyond trusted bounds

    @property
    def first_choice(self) -> int:
        """Of a Discrete space."""
        return int(self._space.start) if isinstance(self._space, spaces.Discrete) else 0

    def flat(self, values: NDArray[Any]) -> NDArray[Any]:
        """Int64 `[steps]` (Discrete), else float32 `[steps, columns]`, see `aaren_rl.layout`."""
        if self._space is None:
            self._space = self._choose(values)
            self._discrete = isinstance(self._space, spaces.Discrete)
        if self._discrete:
            return self._choices(values)
        flat = Layout.of(self._space).flatten(shaped(self._space, values))
        if not isinstance(self._space, spaces.Box):
            return flat
        check_finite(flat)
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
        theirs = self._environments
        if self._declared is not None:
            own = self._declared
        elif isinstance(theirs, (spaces.MultiDiscrete, spaces.MultiBinary)):
            return theirs
        elif values.dtype.kind in "bui" and single:
            own = spaces.Discrete(1)  # until all are known
        else:
            self._integers = values.dtype.kind in "bui"
            own = spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)
        if theirs is None:
            return own
        maybe_choices = self._declared is None and single and isinstance(theirs, spaces.Discrete)
        both_discrete = isinstance(own, spaces.Discrete) and isinstance(theirs, spaces.Discrete)
        ours, other = Layout.of(own).leaves[0], Layout.of(theirs).leaves[0]
        same = (ours.size, ours.levels) == (other.size, other.levels)
        if not (maybe_choices or (both_discrete and self._declared is None) or same):
            raise UserError(
                f"the environment takes {theirs}, the data hold {own}; the same kind and size "
                "expected"
            )
        return theirs

    def _choices(self, values: NDArray[Any]) -> NDArray[np.int64]:
        values = one_a_step(values)
        open_ended = self._declared is None and self._environments is None
        assert isinstance(self._space, spaces.Discrete)
        least = int(self._space.start)
        if not (np.isfinite(values).all() and (values == np.floor(values)).all()):
            right = False
        else:
            most = int(values.max())
            right = values.min() >= least and (open_ended or most < least + self._space.n)
        if not right:
            upper = "" if open_ended else f" to {least + int(self._space.n) - 1}"
            raise UserError(f"integers from {least}{upper} expected")
        if open_ended and most >= self._space.n:
            self._space = spaces.Discrete(most + 1)
        return values.astype(np.int64)

    def final_space(self) -> Space:
        """The space, once all actions were seen; warns where they do not fit."""
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
        assert self._low is not None
        assert self._high is not None
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
        return spaces.Box(
            low.reshape(shape).astype(kind), high.reshape(shape).astype(kind), dtype=kind
        )

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


def _bounds(space: Space) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest of each column, float32 `[size]`."""
    assert isinstance(space, spaces.Box)
    return space.low.reshape(-1).astype(np.float32), space.high.reshape(-1).astype(np.float32)


def _tolerance(bounds: NDArray[Any]) -> NDArray[Any]:
    """How far beyond a bound is its rounding."""
    return ROUNDING * np.maximum(1, np.abs(bounds))

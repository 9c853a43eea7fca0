"""Recorded actions made flat, and the bounds that they are learned within."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.episode import warn_once
from aaren_rl.data.rounding import Rounding, warn_of_blurred
from aaren_rl.data.spaces import check_finite, named, numbers, one_a_step, parts_of, shaped
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

MOST_CHOICES = 1_000_000  # taken from data of no known space; each costs an agent a row of weights
ROUNDING = 1e-5  # actions may lie beyond their bounds by this share of them
Space = spaces.Space[Any]


def actions_of(
    where: str,
    declared: Space | None,
    env_space: Space | None,
    trusted: bool,
    values: Any,
    ask: Callable[[], Space | None] | None = None,
) -> Actions | ActionParts:
    """What flattens actions such as `values`; the other arguments are those of `Actions`."""
    given = [space for space in (declared, env_space) if space is not None]
    in_parts = isinstance(values, (dict, tuple))
    if any(isinstance(each, (spaces.Dict, spaces.Tuple)) is not in_parts for each in given):
        found = "in parts" if in_parts else "in one array"
        raise UserError(f"{found}, which does not fit {'; '.join(map(str, given))}")
    if not in_parts:
        return Actions(where, declared, env_space, trusted, ask)
    names = dict(enumerate(values)) if isinstance(values, tuple) else values
    known = [None if space is None else parts_of(space) for space in (declared, env_space)]
    for each in known:
        if each is not None and each.keys() != names.keys():
            raise UserError(f"parts {list(names)}; parts {list(each)} expected")
    parts: dict[Any, Actions | ActionParts] = {}
    for key in sorted(names):  # as in `aaren_rl.layout`
        first, second = (None if each is None else each[key] for each in known)
        with named(str(key)):
            parts[key] = actions_of(f"{where}: {key}", first, second, trusted, names[key])
    return ActionParts(parts, isinstance(values, tuple))


class ActionParts:
    """As `Actions`, of a Dict or Tuple: each part has an `Actions` of its own."""

    first_choice = 0

    def __init__(self, parts: dict[Any, Actions | ActionParts], is_tuple: bool) -> None:
        self._parts, self._is_tuple = parts, is_tuple

    def flat(self, values: Any) -> NDArray[Any]:
        """Float32 `[steps, columns]`, see `aaren_rl.layout`."""
        given = dict(enumerate(values)) if isinstance(values, tuple) else values
        if given.keys() != self._parts.keys():  # in any order
            raise UserError(f"parts {list(given)}; parts {list(self._parts)} expected")
        columns = []
        for key, part in self._parts.items():
            with named(str(key)):
                flat = part.flat(given[key])
            columns.append((flat - part.first_choice)[:, None] if flat.ndim == 1 else flat)
        return np.concatenate(columns, axis=1, dtype=np.float32)

    def final_space(self) -> Space:
        """See `Actions.final_space`."""
        found = {key: part.final_space() for key, part in self._parts.items()}
        return spaces.Tuple(list(found.values())) if self._is_tuple else spaces.Dict(found)


class Actions:
    """Flattens actions block by block, and gives their space at the end.

    Actions beyond the bounds of a known environment are clipped, as the environment would do.
    Declared bounds of an unknown environment, and those of data without any, become as wide as the
    data. Both are logged as a warning, and so is any space that is taken from the data.

    Args:
        where: the file or dataset, which errors and warnings name.
        declared: the recording's own space, or None.
        env_space: the environment's own space, or None; it wins.
        trusted: the declared space is the environment's.
        ask: gives the space of the environment that the recording names. It is called when actions
            lie beyond the declared bounds, and for declared choices: recordings declare false ones.
    """

    def __init__(
        self,
        where: str,
        declared: Space | None,
        env_space: Space | None,
        trusted: bool,
        ask: Callable[[], Space | None] | None = None,
    ) -> None:
        self._where, self._declared, self._env_space = where, declared, env_space
        self._ask = ask if env_space is None else None
        self._trusted = trusted or env_space is not None
        self._space: Space | None = None  # chosen at the first block
        self._integers = False  # found in data of no known space
        self._low: NDArray[Any] = np.array(np.inf, np.float32)  # of each column so far
        self._high: NDArray[Any] = np.array(-np.inf, np.float32)
        self._rounding: Rounding | None = None  # of actions in float64
        self._beyond = 0  # steps with an action beyond trusted bounds

    @property
    def first_choice(self) -> int:
        """Of a Discrete space."""
        return int(self._space.start) if isinstance(self._space, spaces.Discrete) else 0

    def flat(self, values: NDArray[Any]) -> NDArray[Any]:
        """Int64 `[steps]` (Discrete), else float32 `[steps, columns]`, see `aaren_rl.layout`."""
        if self._space is None:
            self._space = self._choose(values)
        if isinstance(self._space, spaces.Discrete):
            return self._choices(values, self._space)
        flat = Layout.of(self._space).flatten(shaped(self._space, values))
        if not isinstance(self._space, spaces.Box):
            return flat
        check_finite(flat)
        if np.result_type(values.dtype, np.float32) != np.float32:
            self._rounding = self._rounding or Rounding()
            self._rounding.add(values.reshape(len(values), -1))
        low, high = flat.min(axis=0), flat.max(axis=0)
        self._low, self._high = np.minimum(self._low, low), np.maximum(self._high, high)
        least, most = _bounds(self._space)
        if not self._trusted or ((low >= least).all() and (high <= most).all()):
            return flat
        inside = np.clip(flat, least, most)
        beyond = int((np.abs(flat - inside) > _tolerance(inside)).any(axis=1).sum())
        if beyond and self._ask is not None:
            own, self._ask = self._ask(), None
            if isinstance(own, spaces.Box) and own.shape == self._space.shape:
                self._space = self._env_space = own
                return self.flat(values)
        self._beyond += beyond
        return inside

    def _choose(self, values: NDArray[Any]) -> Space:
        """The environment's space, else the declared one, else one from the first block."""
        values = numbers(values)
        single = values.size == len(values)
        env_space = self._env_space
        if self._declared is not None:
            own = self._declared
        elif isinstance(env_space, (spaces.MultiDiscrete, spaces.MultiBinary)):
            return env_space
        elif env_space is None and values.dtype.kind in "bui" and single:
            own = spaces.Discrete(1)  # `_choices` widens it
        else:
            self._integers = values.dtype.kind in "bui"
            own = spaces.Box(-np.inf, np.inf, values.shape[1:], np.float32)
        if env_space is None:
            return own
        # Declared choices may be fewer than the environment's.
        free = self._declared is None or isinstance(own, spaces.Discrete)
        choices = free and single and isinstance(env_space, spaces.Discrete)
        found, wanted = Layout.of(own).leaves[0], Layout.of(env_space).leaves[0]
        if not choices and (found.size, found.levels) != (wanted.size, wanted.levels):
            raise UserError(
                f"the environment takes {env_space}, the data hold {own}; the same kind and size "
                "expected"
            )
        return env_space

    def _choices(self, values: NDArray[Any], space: spaces.Discrete) -> NDArray[np.int64]:
        values, least = one_a_step(values), int(space.start)
        open_ended = self._declared is None and self._env_space is None
        right = bool((np.isfinite(values) & (values == np.floor(values))).all())
        if right:
            most = int(values.max())
            right = bool(values.min() >= least) and (open_ended or most < least + int(space.n))
        if not right:
            upper = "" if open_ended else f" to {least + int(space.n) - 1}"
            raise UserError(f"integers from {least}{upper} expected")
        if open_ended and most >= MOST_CHOICES:
            raise UserError(
                f"the largest is {most}, and at most {MOST_CHOICES:,} choices are taken from the "
                "data: the action space (action_space=) or the environment (env=, --env) expected"
            )
        if open_ended and most >= space.n:
            self._space = spaces.Discrete(most + 1)
        return values.astype(np.int64)

    def final_space(self) -> Space:
        """The space, after the last block; warns of one from the data, and of misfits."""
        space = self._space
        assert space is not None
        if isinstance(space, spaces.Discrete):
            return self._with_all_choices(space)
        if not isinstance(space, spaces.Box):
            return space
        if self._rounding is not None:
            warn_of_blurred(f"{self._where}: actions", self._rounding.blurred())
        if not self._trusted and self._declared is None:
            return self._bounds_from_data(space)
        (least, most), low, high = _bounds(space), self._low, self._high
        worst = int(np.argmax(np.maximum(least - low, high - most)))
        allowed = f"allowed {least[worst]:.6g} to {most[worst]:.6g}"
        reach = f"{low[worst]:.6g} to {high[worst]:.6g}, {allowed}"
        if self._trusted:
            if self._beyond:
                whose = "declared" if self._env_space is None else "environment's"
                warn_once(
                    f"{self._where}: actions of {self._beyond} steps lie beyond the {whose} "
                    f"bounds ({reach}); they are clipped to them"
                )
            return space
        with np.errstate(over="ignore"):  # bounds may be the largest numbers
            inside = (low >= least - _tolerance(least)) & (high <= most + _tolerance(most))
        if inside.all():
            return space
        warn_once(
            f"{self._where}: actions lie beyond the declared bounds ({reach}), and no "
            "environment is known: the bounds are taken from the data"
        )
        return _box(space, np.minimum(least, low), np.maximum(most, high), np.float32)

    def _with_all_choices(self, space: spaces.Discrete) -> Space:
        """The environment's choices, where it has more than the recording declares."""
        if self._declared is None and self._env_space is None:
            warn_of_guess(f"{self._where}: no action space", space)
        own = self._ask() if self._ask is not None else None
        fewer = isinstance(own, spaces.Discrete) and own.start == space.start and own.n > space.n
        return own if fewer and own is not None else space

    def _bounds_from_data(self, space: spaces.Box) -> spaces.Box:
        """Bounds of -1 and 1, or where a column goes beyond, its largest magnitude."""
        if self._integers:
            found = _box(space, np.minimum(self._low, 0), np.maximum(self._high, 1), np.int64)
            warn_of_guess(f"{self._where}: no action space", found)
            return found
        high = np.maximum(np.maximum(np.abs(self._low), np.abs(self._high)), np.float32(1))
        found = _box(space, -high, high, np.float32)
        if (high > 1 + ROUNDING).any():
            warn_once(
                f"{self._where}: actions reach {float(high.max()):.6g}; the bounds are taken "
                "from the data, as no environment is known"
            )
        else:
            warn_of_guess(f"{self._where}: no action space", found)
        return found


def warn_of_guess(what: str, found: Space) -> None:
    """Warn of a space that neither an environment nor the recording says."""
    text = " ".join(str(found).split())  # arrays of bounds take several lines
    warn_once(f"{what} is known: {text:.90} is taken from the data")


def _box(space: spaces.Box, low: NDArray[Any], high: NDArray[Any], dtype: Any) -> spaces.Box:
    """A Box of the same shape with other bounds `[size]`."""
    shape = space.shape
    return spaces.Box(
        low.reshape(shape).astype(dtype), high.reshape(shape).astype(dtype), dtype=dtype
    )


def _bounds(space: spaces.Box) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Lowest and highest of each column, float32 `[size]`."""
    return space.low.reshape(-1).astype(np.float32), space.high.reshape(-1).astype(np.float32)


def _tolerance(bounds: NDArray[Any]) -> NDArray[Any]:
    """How far beyond a bound is its rounding."""
    return ROUNDING * np.maximum(1, np.abs(bounds))

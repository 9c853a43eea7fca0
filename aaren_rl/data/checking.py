"""Recorded episodes checked, flattened, and given spaces where the recording has none.

Spaces come from the environment where one is known, else from what the recording declares, else
from the data. A warning says so where the data do not fit them.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from functools import partial
from itertools import groupby
from typing import Any, NamedTuple

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.actions import ActionParts, Actions, actions_of, warn_of_guess
from aaren_rl.data.episode import Recording, Trajectory, warn_once
from aaren_rl.data.rounding import LEAST_RANGE, Rounding, warn_of_blurred
from aaren_rl.data.spaces import (
    check_finite,
    flat_size,
    join_rows,
    map_arrays,
    named,
    numbers,
    one_a_step,
    read_rows,
    row_count,
    shaped,
)
from aaren_rl.environment import Known, registered_action_space
from aaren_rl.errors import UserError
from aaren_rl.layout import LARGEST_RETURN, Layout, Leaf

LOST_SHARE = 1e-4  # of a column's range; float32 may round by no more
Space = spaces.Space[Any]


class Block(NamedTuple):
    """Some episodes, one after the other.

    Attributes:
        observations: arrays `[steps, columns]`, one for each run of columns that are stored in one
            dtype; float64 where float32, in which they are stored, rounds them.
        actions: float32 `[steps, action_size]` or int64 `[steps]`.
        rewards: float64 `[steps]`.
        lengths: int64 `[episodes]`, and bool `terminated` and `truncated`.
    """

    observations: list[NDArray[Any]]
    actions: NDArray[Any]
    rewards: NDArray[np.float64]
    lengths: NDArray[np.int64]
    terminated: NDArray[np.bool_]
    truncated: NDArray[np.bool_]


class Checker:
    """Checks and flattens a recording's episodes block by block, and gives their spaces at the end.

    Args:
        recording: its spaces are trusted to be the environment's where it says the environment.
        known: what the environment itself says, where it was asked; its spaces win.
    """

    def __init__(self, recording: Recording, known: Known | None = None) -> None:
        self._where, self._recording, self._known = recording.where, recording, known
        self._observations = _Observations(recording.where, recording.observation_space, known)
        self._actions: Actions | ActionParts | None = None
        with named(f"{self._where}: actions"):
            for space in (recording.action_space, known and known.action_space):
                if space is not None:
                    Layout.of(space)

    def blocks(self, episodes: Iterable[Trajectory]) -> Iterator[Block]:
        """The episodes in blocks; errors as `TrajectoryDataset.from_episodes`."""
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
        assert self._actions is not None
        seen = self._observations.space
        assert seen is not None
        guessed = self._recording.observation_space is None and self._known is None
        # Floats without bounds are no guess; whole numbers may be choices.
        if guessed and any(np.dtype(leaf.dtype).kind != "f" for leaf in Layout.of(seen).leaves):
            warn_of_guess(f"{self._where}: no observation space", seen)
        return seen, self._actions.final_space()

    def observation_offset(self) -> NDArray[np.float64] | None:
        """What to subtract from observations before they are stored as float32; None for nothing.

        Float32 holds 7 digits: Unix seconds near 1.7e9 all round to the same number. From a column
        that loses its differences so, the middle of its range is subtracted.
        """
        return self._observations.offset()

    def _block(self, episodes: Sequence[Trajectory]) -> Block:
        with named("rewards"):
            rewards = [one_a_step(episode.rewards) for episode in episodes]
            lengths = [len(values) for values in rewards]
            if 0 in lengths:
                raise UserError("no steps; an episode needs at least one")
            all_rewards = np.concatenate(rewards, dtype=np.float64, casting="unsafe")
            check_finite(all_rewards)
            largest = float(np.abs(all_rewards).max()) * max(lengths)
            if largest > LARGEST_RETURN:
                raise UserError(
                    f"so large that returns may reach {largest:.3g}; returns up to "
                    f"{LARGEST_RETURN:g} expected (their squares must fit into float32)"
                )
        with named("observations"):
            parts = [
                _first_rows(episode.observations, steps)
                for episode, steps in zip(episodes, lengths, strict=True)
            ]
            observations = self._observations.columns(join_rows(parts))
            if not any(run.size for run in observations):
                raise UserError("no numbers in a step; at least one expected")
        with named("actions"):
            given = [
                map_arrays(lambda part: np.atleast_1d(numbers(part)), episode.actions)
                for episode in episodes
            ]
            for values, steps in zip(given, lengths, strict=True):
                if (rows := row_count(values)) != steps:
                    raise UserError(f"{rows} actions for {steps} rewards; {steps} expected")
            joined = join_rows(given)
            if self._actions is None:
                env_space = None if self._known is None else self._known.action_space
                declared, spec = self._recording.action_space, self._recording.env_spec
                self._actions = actions_of(
                    self._where,
                    declared,
                    env_space,
                    spec is not None,
                    joined,
                    partial(registered_action_space, spec),
                )
            if not (actions := self._actions.flat(joined)).size:
                raise UserError("no numbers in a step; at least one expected")
        terminated = np.array([bool(episode.terminated) for episode in episodes])
        # a recording that stops with neither flag was cut short
        truncated = np.array([bool(episode.truncated) for episode in episodes]) | ~terminated
        return Block(
            observations, actions, all_rewards, np.array(lengths, np.int64), terminated, truncated
        )


class _Observations:
    """Observations as columns, in their own dtypes; measures what float32 would round away."""

    def __init__(self, where: str, declared: Space | None, known: Known | None) -> None:
        self._where, self._declared, self._known = where, declared, known
        self.space: Space | None = None  # chosen at the first block
        self._dtypes: list[np.dtype[Any]] = []  # of each leaf, as it is stored
        self._ranges: dict[int, tuple[NDArray[Any], ...]] = {}  # by run: loss, lowest, highest
        self._samples: dict[int, Rounding] = {}  # likewise
        self._widths: list[int] = []  # of the runs
        if declared is not None:
            with named(f"{where}: observations"):
                Layout.of(declared)

    def columns(self, values: Any) -> list[NDArray[Any]]:
        """See `Block.observations`."""
        if self.space is None:
            self.space = self._choose(values)
            self._layout = Layout.of(self.space)
        parts = self._layout.parts(shaped(self.space, values))
        if not self._dtypes:
            leaves = self._layout.leaves
            self._dtypes = [_kept_dtype(*each) for each in zip(leaves, parts, strict=True)]
        runs = [
            self._run(index, dtype, [part for _, part in pairs])
            for index, (dtype, pairs) in enumerate(
                groupby(zip(self._dtypes, parts, strict=True), key=lambda pair: pair[0])
            )
        ]
        self._widths = [run.shape[1] for run in runs]
        return runs

    def _run(self, index: int, dtype: np.dtype[Any], parts: list[NDArray[Any]]) -> NDArray[Any]:
        """Columns of one dtype, checked."""
        if dtype != np.float32:
            whole = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
            kept = whole.astype(dtype, copy=False)
            if kept is not whole and not np.array_equal(kept, whole):
                raise UserError(f"numbers that are no {dtype}, which the space says they are")
            return kept
        exact = all(_exact_in_float32(part.dtype) for part in parts)
        parts = [part.astype(np.float32 if exact else np.float64, copy=False) for part in parts]
        flat = np.concatenate(parts, axis=1) if len(parts) > 1 else parts[0]
        if exact:
            check_finite(flat)
            return flat
        with np.errstate(over="ignore"):  # what does not fit becomes infinite, and is refused
            rounded = flat.astype(np.float32)
        check_finite(rounded)
        lost = np.abs(flat - rounded).max(axis=0)
        found = lost, flat.min(axis=0), flat.max(axis=0)
        if index in self._ranges:
            pairs = zip(self._ranges[index], found, strict=True)
            largest = (np.maximum, np.minimum, np.maximum)
            found = tuple(f(*pair) for f, pair in zip(largest, pairs, strict=True))
        self._ranges[index] = found
        self._samples.setdefault(index, Rounding()).add(flat)
        return flat if lost.any() else rounded

    def _choose(self, values: Any) -> Space:
        """The environment's space where the data fit it, else the declared one, else a Box."""
        own = _any_numbers(values) if self._declared is None else self._declared
        if self._known is None:
            return own
        env_space = self._known.observation_space
        sizes = flat_size(env_space), flat_size(own)
        problem: UserError | None = None
        if sizes[0] == sizes[1] or self._declared is None:
            try:
                Layout.of(env_space).parts(shaped(env_space, values))
                return env_space
            except UserError as error:
                problem = error
        if sizes[0] != sizes[1]:
            raise UserError(
                f"the environment's {env_space} has {sizes[0]} values, the data's {own} has "
                f"{sizes[1]}; equal numbers expected"
            )
        warn_once(
            f"{self._where}: observations do not have the form of the environment's {env_space} "
            f"({problem}); taken for {own}, the same number of values"
        )
        return own

    def offset(self) -> NDArray[np.float64] | None:
        if not self._ranges:
            return None
        # Nothing is lost in the runs of other dtypes.
        nothing = [(np.zeros(width),) * 3 for width in self._widths]
        ranges = [self._ranges.get(i, zeros) for i, zeros in enumerate(nothing)]
        lost, low, high = (np.concatenate(each) for each in zip(*ranges, strict=True))
        columns = (lost > LOST_SHARE * (high - low)) & (high - low > LEAST_RANGE)
        middle = np.where(columns, (low + high) / 2, 0.0)
        splits = np.split(middle, np.cumsum(self._widths)[:-1])
        blurred = [
            self._samples[i].blurred(part) if i in self._samples else np.zeros(len(part), bool)
            for i, part in enumerate(splits)
        ]
        warn_of_blurred(f"{self._where}: observations", np.concatenate(blurred))
        if not columns.any():
            return None
        place = int(np.flatnonzero(columns)[0])
        warn_once(
            f"{self._where}: observations: float32 cannot tell the values of column {place} apart "
            f"(near {middle[place]:.10g}); {int(columns.sum())} column(s) are stored less the "
            "middle of their range (agents of this library take the same from what they see)"
        )
        return middle


def shifted(block: Block, offset: NDArray[np.float64] | None) -> list[NDArray[Any]]:
    """Observations of a block as they are stored: minus the offset, floats as float32."""
    found, first = [], 0
    for run in block.observations:
        moved, width = run, run.shape[1]
        if run.dtype in (np.float32, np.float64):
            if offset is not None:
                moved = run - offset[first : first + width]
            moved = moved.astype(np.float32, copy=False)
        found.append(moved)
        first += width
    return found


def _kept_dtype(leaf: Leaf, part: NDArray[Any]) -> np.dtype[Any]:
    """The dtype to store a part in: its own where that is narrow and its numbers fit, else float32.

    Choices take the narrowest that holds them.
    """
    plain = np.dtype(np.float32)
    if leaf.levels:
        narrow = np.min_scalar_type(max(leaf.levels) - 1)
        return narrow if narrow.itemsize < plain.itemsize else plain
    own = np.dtype(leaf.dtype)
    if own == plain or not _exact_in_float32(own):
        return plain
    with np.errstate(all="ignore"):
        return own if np.array_equal(part.astype(own), part) else plain


def _groups(episodes: Iterable[Trajectory]) -> Iterator[list[Trajectory]]:
    """Neighbouring episodes, together at most `read_rows` steps, or a single longer one."""
    group: list[Trajectory] = []
    steps = 0
    for episode in episodes:
        length = len(episode.rewards) if np.iterable(episode.rewards) else 1
        if group and steps + length > read_rows(episode.observations):
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

"""Episodes cut out of flat arrays, which hold all steps of all episodes one after the other.

D4RL's files, d3rlpy's first files, `.npz` files and arrays in memory are all laid out so.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from aaren_rl.data.episode import BLOCK, Trajectory, warn_once
from aaren_rl.data.sources.hdf5 import read_array
from aaren_rl.data.spaces import flags, join_rows, map_arrays, named, numbers, read_rows, row_count
from aaren_rl.errors import UserError

NAMES = {
    "observations": ("observations",),
    "actions": ("actions",),
    "rewards": ("rewards",),
    "terminals": ("terminals", "terminations", "terminated", "dones", "done"),
    "timeouts": ("timeouts", "truncations", "truncated"),
    "next_observations": ("next_observations",),
}
"""The name of each array, and the names under which files may have it."""
NEEDED = ("observations", "actions", "rewards")
ENDS = ("terminals", "timeouts")
PARTED = ("observations", "next_observations", "actions")  # which may be of several arrays


@dataclass(frozen=True)
class FlatOptions:
    """How flat arrays are cut into episodes."""

    episode_length: int | None = None
    """Cut an episode after so many steps, where the data mark no end: some D4RL files have no
    `timeouts`. By default at marked ends only."""


def flat_arrays(where: str, what: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """The arrays under the keys of `NAMES`; their shapes and types are checked without reading.

    Args:
        where: the file, which errors name.
        what: the format it was taken for.
        given: arrays or HDF5 datasets by any of the names in `NAMES`; others are ignored.
            Observations and actions may be dictionaries or tuples of arrays.

    Raises:
        UserError: a missing array, arrays of different lengths, or several values a step where
            one is expected.
    """
    arrays: dict[str, Any] = {}
    for name, names in NAMES.items():
        there = [each for each in names if given.get(each) is not None]
        for each in set(names).difference(there):
            if isinstance(given, h5py.Group) and given.get(each, getlink=True) is not None:
                raise UserError(f"{where}: {each}: a link that leads nowhere; an array expected")
        for other in there[1:]:
            warn_once(f"{where}: {other!r} is left out, since {there[0]!r} is there")
        if there:
            arrays[name] = given[there[0]]
    for name in NEEDED:
        if name not in arrays:
            raise UserError(f"{where}: array {name!r} missing; {what} has {', '.join(NEEDED)}")
    for name, values in arrays.items():
        with named(f"{where}: {name}"):
            parts = _leaves(values) if name in PARTED else [values]
        for part in parts:
            if not isinstance(part, (np.ndarray, h5py.Dataset)):
                found = type(part).__name__.lower()
                raise UserError(f"{where}: {name}: a {found}; an array expected")
            if not part.shape:
                raise UserError(f"{where}: {name}: a single value; an array expected")
            if part.dtype.kind not in "biuf":
                raise UserError(f"{where}: {name}: values of type {part.dtype}: numbers expected")
    steps = row_count(arrays["actions"])
    after = arrays.get("next_observations")
    if after is not None and any(len(part) != steps for part in _leaves(after)):
        del arrays["next_observations"]  # only `convert` needs it
    for name, values in arrays.items():
        for rows in {len(part) for part in _leaves(values)}:
            if rows != steps and not (name == "observations" and rows == steps + 1):
                raise UserError(
                    f"{where}: {rows} rows of {name} for {steps} actions; equal numbers expected"
                )
    for name in ("rewards", *ENDS):
        if name in arrays and arrays[name].size != steps:
            shape = list(arrays[name].shape)
            raise UserError(f"{where}: {name} of shape {shape}; one value a step expected")
    return arrays


def _leaves(values: Any) -> list[Any]:
    """The arrays of a dictionary or tuple, or the array itself."""
    found: list[Any] = []
    map_arrays(found.append, values)  # refuses empty ones
    return found


def flat_episodes(
    where: str,
    arrays: Mapping[str, Any],
    length: int | None = None,
    *,
    last_observation: bool = False,
) -> Iterator[Trajectory]:
    """The episodes in arrays of `flat_arrays`, read block by block.

    An episode ends where `terminals` or `timeouts` is set, or after `length` steps. Steps behind
    the last end are an episode with neither flag, an unfinished one. With `last_observation` it
    has T + 1 observations where `next_observations` hold the last one.

    Raises:
        UserError: a length below 1, or a part of a file that does not read.
    """
    if length is not None and length < 1:
        raise UserError(f"episode length {length}: at least 1 expected")
    offsets = _offsets(where, arrays, length)
    names = [name for name in arrays if name != "next_observations" or last_observation]
    first, together = 0, read_rows(arrays["observations"])
    while first < len(offsets) - 1:
        last = int(np.searchsorted(offsets, offsets[first] + together, side="right")) - 1
        last = min(max(last, first + 1), len(offsets) - 1)
        start = int(offsets[first])
        rows = slice(start, int(offsets[last]))
        block = {name: _read(f"{where}: {name}", arrays[name], rows) for name in names}
        for low, high in zip(offsets[first:last], offsets[first + 1 : last + 1], strict=True):
            yield _episode(block, int(low) - start, int(high) - start, length)
        first = last


def _offsets(where: str, arrays: Mapping[str, Any], length: int | None) -> NDArray[np.int64]:
    """Where episodes begin and end, int64 `[episodes + 1]`."""
    steps, ends = row_count(arrays["actions"]), [np.zeros(1, np.int64)]
    for start in range(0, steps, BLOCK):
        rows = slice(start, start + BLOCK)
        marks = np.zeros(min(BLOCK, steps - start), bool)
        for name in set(ENDS) & arrays.keys():
            with named(f"{where}: {name}"):
                marks |= flags(_read(f"{where}: {name}", arrays[name], rows))
        ends.append(np.flatnonzero(marks) + start + 1)
    ends.append(np.array([steps]))
    offsets = np.unique(np.concatenate(ends))
    if length is None:
        return offsets
    cuts = [np.arange(low, high, length) for low, high in pairwise(offsets)]
    return np.concatenate([*cuts, offsets[-1:]])


def _read(where: str, values: Any, rows: slice) -> Any:
    """Rows of an array, of an HDF5 dataset, or of each array in a dictionary or tuple."""

    def part(array: Any) -> Any:
        return read_array(where, array, rows) if isinstance(array, h5py.Dataset) else array[rows]

    return map_arrays(part, values)


def _episode(block: dict[str, Any], low: int, high: int, length: int | None) -> Trajectory:
    observations = map_arrays(lambda part: part[low:high], block["observations"])
    if "next_observations" in block:
        after = map_arrays(lambda part: part[high - 1 : high], block["next_observations"])
        observations = join_rows([observations, after])
    ends = {name: bool(block[name].reshape(-1)[high - 1]) for name in ENDS if name in block}
    terminated = ends.get("terminals", False)
    return Trajectory(
        observations=observations,
        actions=map_arrays(lambda part: part[low:high], block["actions"]),
        rewards=block["rewards"][low:high],
        terminated=terminated,
        truncated=ends.get("timeouts", False) or (high - low == length and not terminated),
    )


def as_trajectory(where: str, episode: Mapping[str, Any]) -> Trajectory:
    """An episode from a dictionary, see `TrajectoryDataset.from_episodes`."""
    if not isinstance(episode, Mapping):
        raise UserError(f"{where}: a {type(episode).__name__}; a dictionary of arrays expected")
    for field in NEEDED:
        if field not in episode:
            raise UserError(f"{where}: {field!r} missing")
    with named(f"{where}: rewards"):
        rewards = numbers(episode["rewards"])
    ends = {}
    for field in ENDS:
        there = [episode[each] for each in NAMES[field] if episode.get(each) is not None]
        ends[field] = bool(there) and ended(where, field, there[0], rewards.size)
    parts = {}
    for field in ("observations", "actions"):
        with named(f"{where}: {field}"):
            parts[field] = _by_part(episode[field])
    return Trajectory(
        **parts,
        rewards=rewards,
        terminated=ends["terminals"],
        truncated=ends["timeouts"],
    )


def _by_part(values: Any) -> Any:
    """A list with a dictionary for each step, as environments give them, as one of lists."""
    if not (isinstance(values, list) and values and isinstance(values[0], Mapping)):
        return values
    names = values[0].keys()
    if any(not isinstance(each, Mapping) or each.keys() != names for each in values):
        raise UserError(f"a dictionary with {', '.join(map(str, names))} expected for each step")
    return {name: _by_part([each[name] for each in values]) for name in names}


def ended(where: str, field: str, values: Any, steps: int) -> bool:
    """Whether the flags of an episode, one or one a step, say that it ended.

    Raises:
        UserError: no flags, another number of them, or one set before the last step.
    """
    with named(f"{where}: {field}"):
        marks = flags(values)
        if marks.size not in (1, steps):
            raise UserError(f"{marks.size} flags for {steps} steps; one, or one a step, expected")
    if marks[:-1].any():
        raise UserError(f"{where}: {field} before the last step; give one episode each")
    return bool(marks.any())

"""d3rlpy's HDF5 files, of its first and of its second version."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aaren_rl.data.episode import BLOCK, Recording, Trajectory, warn_once
from aaren_rl.data.flat import ended, flat_arrays, flat_episodes
from aaren_rl.data.sources.hdf5 import open_hdf5, read_array
from aaren_rl.data.spaces import flags, named, read_as, row_count
from aaren_rl.errors import UserError

VERSION_1, VERSION_2 = "a d3rlpy file (v1)", "a d3rlpy file (v2)"


def d3rlpy_source(name: str) -> Recording | None:
    """An HDF5 file that d3rlpy wrote: with `episode_terminals` (v1) or `columns` (v2)."""
    path = Path(name).expanduser()
    if not path.is_file() or not h5py.is_hdf5(path):
        return None
    with open_hdf5(path) as file:
        if "episode_terminals" in file:
            with read_as(str(path), VERSION_1):
                return _version_1(path, file)
        if "columns" in file and "version" in file:
            with read_as(str(path), VERSION_2):
                return _version_2(path, file)
    return None


def _version_1(path: Path, file: h5py.File) -> Recording:
    """Flat arrays, cut at `episode_terminals`.

    In files of its first releases a row holds the reward of the action before: an episode's first
    is 0, and its last action was never taken. Such files are recognised by those zeros, and are
    read as T + 1 observations with T actions and rewards.
    """
    _v1_arrays(path, file)
    late = _has_late_rewards(path, file)
    if late:
        warn_once(
            f"{path}: the first reward of every episode is 0, so each is taken for the reward of "
            "the action before it, as in d3rlpy's first files"
        )

    def episodes() -> Iterator[Trajectory]:
        with open_hdf5(path) as file:
            arrays = _v1_arrays(path, file)
            flag = file.get("discrete_action")
            discrete = isinstance(flag, h5py.Dataset) and bool(np.any(flag[()]))
            for episode in flat_episodes(str(path), arrays):
                actions = episode.actions
                if discrete and (actions == np.floor(actions)).all():
                    actions = actions.astype(np.int64)
                rewards, steps = episode.rewards, len(episode.rewards)
                if late:
                    steps -= 1
                    actions, rewards = actions[:-1], rewards[1:]
                if steps:
                    terminated = episode.terminated
                    truncated = episode.truncated and not terminated
                    yield Trajectory(episode.observations, actions, rewards, terminated, truncated)

    return Recording(path.stem, episodes, VERSION_1, str(path), files=[path])


def _v1_arrays(path: Path, file: h5py.File) -> dict[str, Any]:
    arrays = flat_arrays(str(path), VERSION_1, {**dict(file), "timeouts": None})
    where, ends = f"{path}: episode_terminals", file["episode_terminals"]
    if not isinstance(ends, h5py.Dataset):
        raise UserError(f"{where}: a group; an array expected")
    with named(where):
        marks = flags(read_array(where, ends))
    steps = row_count(arrays["actions"])
    if len(marks) != steps:
        raise UserError(f"{where}: {len(marks)} flags for {steps} actions; equal numbers expected")
    return {**arrays, "timeouts": marks}  # they mark both kinds of ends


def _has_late_rewards(path: Path, file: h5py.File) -> bool:
    """Whether every episode begins with a reward of 0, and few other rewards are 0."""
    zeros = 0
    rewards = file["rewards"]
    for start in range(0, len(rewards), BLOCK):
        rows = slice(start, start + BLOCK)
        zeros += int((read_array(f"{path}: rewards", rewards, rows) == 0).sum())
    episodes = 0
    for episode in flat_episodes(str(path), _v1_arrays(path, file)):
        if np.ravel(episode.rewards)[0] != 0:
            return False
        episodes += 1
    return episodes > 0 and 2 * (zeros - episodes) < len(rewards) - episodes


def _version_2(path: Path, file: h5py.File) -> Recording:
    """One array a field and episode: `observations_0`, `actions_0`, ..."""
    where = f"{path}: num_episodes"
    if not isinstance(file.get("num_episodes"), h5py.Dataset):
        raise UserError(f"{where}: missing; d3rlpy files have it from version 2.1 on")
    numbers = read_array(where, file["num_episodes"])
    if numbers.size != 1 or numbers.dtype.kind not in "iu":
        raise UserError(f"{where}: one integer expected, got {numbers.dtype} {numbers.shape}")
    count = int(numbers.item())
    if count < 0:
        raise UserError(f"{where}: {count}; 0 or more expected")
    if f"terminated_{count}" in file:
        there = sum(name.startswith("terminated_") for name in file)
        warn_once(f"{where}: {count}, and the file holds {there}: the first {count} are read")

    def episodes() -> Iterator[Trajectory]:
        with open_hdf5(path) as file:
            for index in range(count):
                rewards = _field(path, file, "rewards", index)
                marks = _field(path, file, "terminated", index)
                terminated = ended(str(path), f"terminated_{index}", marks, row_count(rewards))
                yield Trajectory(
                    _field(path, file, "observations", index),
                    _field(path, file, "actions", index),
                    rewards,
                    terminated,
                    not terminated,
                )

    return Recording(path.stem, episodes, VERSION_2, str(path), files=[path])


def _field(path: Path, file: h5py.File, field: str, index: int) -> Any:
    """An array of an episode, or a tuple of arrays (`observations_0_0`, `observations_0_1`)."""
    name = f"{field}_{index}"
    if isinstance(file.get(name), h5py.Dataset):
        return read_array(f"{path}: {name}", file[name])
    parts: list[Any] = []
    while isinstance(file.get(f"{name}_{len(parts)}"), h5py.Dataset):
        part = f"{name}_{len(parts)}"
        parts.append(read_array(f"{path}: {part}", file[part]))
    if not parts:
        raise UserError(f"{path}: episode {index}: array {name!r} missing")
    return tuple(parts)

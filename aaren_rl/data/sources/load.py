"""`load_dataset`: what a dataset's name can mean, decided in one place."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np
from gymnasium.spaces import Discrete

from aaren_rl.data.disk import cached, default_cache
from aaren_rl.data.episode import Recording, Trajectory, warn_once
from aaren_rl.data.flat import FlatOptions
from aaren_rl.data.mask_velocity import PREFIX, mask_velocity, masked_recording
from aaren_rl.data.sources.arrays import json_source, npz_source
from aaren_rl.data.sources.d3rlpy import d3rlpy_source
from aaren_rl.data.sources.d4rl import d4rl_source
from aaren_rl.data.sources.lerobot import lerobot_source
from aaren_rl.data.sources.minari import SHIPPED_ROOT, minari_download, minari_source
from aaren_rl.data.sources.registry import SOURCES, register_source
from aaren_rl.data.spaces import read_as
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.environment import known_environment
from aaren_rl.errors import UserError
from aaren_rl.files import check_permission, user_path
from aaren_rl.layout import Layout
from aaren_rl.registry import load_plugins

__all__ = ["SHIPPED_ROOT", "load_dataset", "load_trajectories", "open_recording"]

# Tried in this order, after those that others register.
register_source("npz", npz_source, FlatOptions)
register_source("json", json_source, FlatOptions)
register_source("lerobot", lerobot_source)  # before Minari, whose folders have data/ too
register_source("minari", minari_source)
register_source("d3rlpy", d3rlpy_source)
register_source("d4rl", d4rl_source, FlatOptions)
register_source("minari-download", minari_download)
BUILT_IN = tuple(SOURCES)


def load_dataset(
    name_or_path: str | Path,
    *,
    env: Any = None,
    source: str | None = None,
    on: Literal["memory", "disk"] = "memory",
    cache: Path | None = None,
    keep_unfinished_episode: bool = True,
    **options: Any,
) -> TrajectoryDataset:
    """Read a dataset from wherever it is.

        >>> data = load_dataset("aaren-rl/hopper-small-v0")
        >>> data.num_episodes, data.observations.shape
        (79, (52925, 11))

    `name_or_path` is taken for, in this order,

    1. what a registered source says is its own (`register_source`);
    2. the path of a `.npz` or JSON file with own episodes, of a Minari or LeRobot dataset's
       folder, of an HDF5 file of d3rlpy, or of one in D4RL's layout;
    3. the id of a dataset inside this package, `aaren-rl/hopper-small-v0`;
    4. the id of a Minari dataset on this machine, in `MINARI_DATASETS_PATH` or its default;
    5. the name of a D4RL dataset, `hopper-medium-v2`, in D4RL's cache or else downloaded;
    6. the id of a Minari dataset to download.

    `mask-velocity:` in front of any of these takes the velocities out of a robot's observations:
    see `aaren_rl.data.mask_velocity`.

    Args:
        name_or_path: what to read.
        env: the environment that the data come from, as in `TrajectoryDataset.from_episodes`; its
            spaces win over those of the file.
        source: ask only the source of this name.
        on: where the steps lie while one works with them; `disk` is for datasets that memory does
            not hold (see `aaren_rl.data.disk`).
        cache: folder of the files for `disk`; by default `disk.default_cache()`.
        keep_unfinished_episode: D4RL's recordings stop inside an episode, whose returns-to-go are
            then too low. It is read as it is; training leaves it out (`train` gives False here),
            which is logged as a warning once. A file's only episode is kept in any case.
        **options: of the source, such as `episode_length=1000` for flat arrays without `timeouts`.

    Raises:
        UserError: there is no such dataset, or it does not read; one line that says why, and which
            format it was taken for.
    """
    name = str(name_or_path)
    common: dict[str, Any] = {"source": source, "on": on, "cache": cache, **options}
    if name.startswith(PREFIX):  # the environment, if given, has no velocities either
        whole = load_dataset(
            name.removeprefix(PREFIX), keep_unfinished_episode=keep_unfinished_episode, **common
        )
        return mask_velocity(whole)
    opened = _open(name, source, options)
    if isinstance(opened, TrajectoryDataset):  # in memory already
        return opened if env is None else with_spaces_of(opened, env)
    known = None if env is None else known_environment(env)
    settings = [sorted(options.items()), keep_unfinished_episode]
    if not keep_unfinished_episode:
        opened = _without_unfinished(opened)
    with read_as(opened.where, opened.kind):
        if on == "memory":
            return TrajectoryDataset.from_recording(opened, known)
        return cached(opened, known, settings, Path(cache) if cache else default_cache())


load_trajectories = load_dataset
"""The name of `load_dataset` in earlier versions."""


def open_recording(name_or_path: str | Path, **options: Any) -> Recording:
    """Open a dataset without reading all its episodes; see `load_dataset`."""
    name = str(name_or_path)
    if name.startswith(PREFIX):
        return masked_recording(open_recording(name.removeprefix(PREFIX), **options))
    opened = _open(name, None, options)
    return _recording_of(opened) if isinstance(opened, TrajectoryDataset) else opened


def _open(name: str, source: str | None, options: dict[str, Any]) -> Recording | TrajectoryDataset:
    """Try the sources, installed plug-ins' first."""
    load_plugins()
    path = user_path(name)
    check_permission(path)
    plugins = [each for each in SOURCES if each not in BUILT_IN]
    for each in [source] if source else [*plugins, *BUILT_IN]:
        entry = SOURCES[each]
        try:
            given = SOURCES.options(each, options)
        except UserError as error:
            if source is None and entry.make(name, **SOURCES.options(each, {})) is None:
                continue  # not its own
            raise UserError(f"dataset {name!r}: {error}") from None
        found = entry.make(name, **given)
        if found is not None:
            if not isinstance(found, (Recording, TrajectoryDataset)):
                raise UserError(
                    f"data source {each}: gave a {type(found).__name__}; a Recording, a "
                    "TrajectoryDataset or None expected"
                )
            return found
    if source:
        raise UserError(f"dataset {name!r}: not one of data source {source}")
    there = "no such file or folder"
    if path.is_dir():
        there = "a folder without data/metadata.json or meta/info.json"
    elif path.exists():
        there = "a file of an unknown format"
    raise UserError(
        f"dataset {name!r}: {there}; a D4RL file, a Minari folder, a Minari id or a D4RL name, a "
        "d3rlpy file, a LeRobot folder, or a .npz or .json file expected"
    )


def with_spaces_of(data: TrajectoryDataset, env: Any) -> TrajectoryDataset:
    """The data read again with the spaces of the environment that they come from.

    Arrays alone do not tell choices that were never taken, bounds, or an observation's shape.

    Args:
        data: in memory; on the disk they are returned as they are.
        env: as in `TrajectoryDataset.from_episodes`.

    Raises:
        UserError: the environment cannot be made, or is not that of these data.
    """
    known = known_environment(env)
    same = known[:2] == (data.observation_space, data.action_space)
    if same or not isinstance(data.actions, np.ndarray):  # memory may not hold what is on the disk
        return data
    own = _recording_of(data)  # its spaces may be guesses
    recording = dataclasses.replace(own, observation_space=None, action_space=None)
    with read_as(recording.where, recording.kind):
        return TrajectoryDataset.from_recording(recording, known)


def _recording_of(data: TrajectoryDataset) -> Recording:
    """A dataset in memory as a recording, its values in the shapes and dtypes of the spaces."""
    seen, taken = Layout.of(data.observation_space), Layout.of(data.action_space)
    offset = data.observation_offset
    if offset is not None:  # float32 would round the sums
        exact = {leaf: dataclasses.replace(leaf, dtype="float64") for leaf in seen.leaves}
        seen = Layout(exact[x] if np.dtype(x.dtype).kind == "f" else x for x in seen.leaves)

    def episodes() -> Iterator[Trajectory]:
        for episode in map(data.episode, range(data.num_episodes)):
            observations, actions = episode.observations, episode.actions
            if offset is not None:
                observations = observations + offset
            if not isinstance(data.action_space, Discrete):
                actions = taken.unflatten(actions)
            yield dataclasses.replace(
                episode, observations=seen.unflatten(observations), actions=actions
            )

    return Recording(
        name=data.name,
        episodes=episodes,
        kind="a dataset in memory",
        where=data.name,
        observation_space=data.observation_space,
        action_space=data.action_space,
        env_spec=data.env_spec,
        reference_scores=data.reference_scores,
    )


def _without_unfinished(recording: Recording) -> Recording:
    """The recording without a last episode that no flag ends; the only one is kept in any case."""

    def episodes() -> Iterator[Trajectory]:
        before: Trajectory | None = None
        several = False
        for episode in recording.episodes():
            if before is not None:
                several = True
                yield before
            before = episode
        if before is None:
            return
        if before.terminated or before.truncated:
            yield before
        elif not several:
            warn_once(
                f"{recording.where}: the only episode is unfinished, so that its returns-to-go are "
                "too low: it is kept, since there is no other (--episode-length cuts it)"
            )
            yield before
        else:
            warn_once(
                f"{recording.where}: the last episode is unfinished, so that its returns-to-go "
                "would be too low: it is left out (--keep-unfinished-episode keeps it)"
            )

    return dataclasses.replace(recording, episodes=episodes)

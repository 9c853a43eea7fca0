"""D4RL's HDF5 files: all steps of all episodes in flat arrays.

The package `d4rl` does not import beside a modern stack, and only one of its files is needed:
`infos.py`, plain data that knows the address and the reference scores of every dataset.
"""

from __future__ import annotations

import difflib
import importlib.util
import math
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import h5py
import numpy as np

from aaren_rl.data.episode import Recording, Trajectory
from aaren_rl.data.flat import flat_arrays, flat_episodes
from aaren_rl.data.sources.download import download
from aaren_rl.data.sources.hdf5 import is_meant_as_hdf5, open_hdf5
from aaren_rl.data.spaces import read_as
from aaren_rl.errors import UserError, one_line
from aaren_rl.robots import ROBOTS, reference_scores, words

NAME = re.compile(
    r"(bullet-)?(ant|antmaze|carla|door|flow|halfcheetah|hammer|hopper|kitchen|maze2d|minigrid|pen"
    r"|relocate|walker2d)-[a-z0-9-]+-v\d+"
)
KIND = "a D4RL file"
QUALITIES = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")


def d4rl_source(name: str, episode_length: int | None = None) -> Recording | None:
    """An HDF5 file in D4RL's layout, or the name of a D4RL dataset in D4RL's cache or to download.

    HDF5 files of any other layout are refused here: no source is asked for them after this one.

    Raises:
        UserError: no such dataset, or the file is neither there nor can it be downloaded; the
            message says which file to place where.
    """
    path = Path(name).expanduser()
    if path.is_file():
        return open_d4rl(path, episode_length=episode_length) if is_meant_as_hdf5(path) else None
    if not is_d4rl_name(name):
        return None
    infos = _load_infos()
    default = Path.home() / ".d4rl" / "datasets"
    folder = Path(os.environ.get("D4RL_DATASET_DIR") or default).expanduser()
    places = [folder / file for file in _file_names(name, infos)]
    found = next((place for place in places if place.is_file()), None)
    if found is None:
        found = places[0]
        _download(name, infos, found)
    scores = None
    if infos is not None and name in infos.REF_MIN_SCORE and name in infos.REF_MAX_SCORE:
        scores = float(infos.REF_MIN_SCORE[name]), float(infos.REF_MAX_SCORE[name])
    return open_d4rl(found, name=name, scores=scores, episode_length=episode_length)


def open_d4rl(
    path: Path,
    *,
    name: str | None = None,
    scores: tuple[float, float] | None = None,
    episode_length: int | None = None,
) -> Recording:
    """Open a file in D4RL's layout; see `flat_episodes` for where episodes end.

    Args:
        path: the file.
        name: the dataset's name; the file's if left out.
        scores: reference (minimum, maximum) returns; D4RL's by the name if left out.
        episode_length: cut an episode after so many steps besides.
    """
    name = name or path.stem
    with open_hdf5(path) as file:
        arrays = check_d4rl(path, file)
        observed, acted = (np.shape(arrays[name]) for name in ("observations", "actions"))

    def episodes(last_observation: bool = False) -> Iterator[Trajectory]:
        with open_hdf5(path) as file:
            arrays = check_d4rl(path, file)
            yield from flat_episodes(
                str(path), arrays, episode_length, last_observation=last_observation
            )

    return Recording(
        name=name,
        episodes=episodes,
        kind=KIND,
        where=str(path),
        reference_scores=scores
        or reference_scores(name, sizes=(math.prod(observed[1:]), math.prod(acted[1:]))),
        files=[path],
        to_the_end=lambda: episodes(last_observation=True),
    )


def check_d4rl(path: Path, file: h5py.File) -> dict[str, Any]:
    """The arrays of a file, see `flat_arrays`; an error lists what is there."""
    if "episode_0" in file:
        raise UserError(f"{path}: Minari's layout; give the folder with its metadata.json")
    try:
        with read_as(str(path), KIND):
            return flat_arrays(str(path), KIND, file)
    except UserError as error:
        if "missing" not in str(error):
            raise
        there = ", ".join(sorted(file)[:8]) or "nothing"
        raise UserError(f"{error}, this one has {there}") from None


def is_d4rl_name(source: str) -> bool:
    """Whether `source` is named as D4RL names its datasets: `hopper-medium-v2`."""
    return NAME.fullmatch(source) is not None


def _load_infos() -> ModuleType | None:
    """D4RL's `infos.py`, loaded by its location, or None where d4rl is not installed.

    `find_spec` of a top-level package finds it without running it.
    """
    package = importlib.util.find_spec("d4rl")
    for location in (package and package.submodule_search_locations) or ():
        file = Path(location) / "infos.py"
        spec = importlib.util.spec_from_file_location("aaren_rl_d4rl_infos", file)
        if spec is None or spec.loader is None or not file.is_file():
            continue
        infos = importlib.util.module_from_spec(spec)
        try:
            spec.loader.exec_module(infos)
        except Exception as error:  # whatever that file raises
            raise UserError(f"{file}: does not load: {one_line(error)}") from error
        return infos
    return None


def _file_names(name: str, infos: ModuleType | None) -> list[str]:
    """The files that the dataset may be in, D4RL's own name first."""
    robot = words(name)[0]
    known = infos.DATASET_URLS if infos else []
    if infos is None and robot in ROBOTS:
        known = [f"{robot}-{quality}-v{n}" for quality in QUALITIES for n in range(3)]
    if known and name not in known:
        near = difflib.get_close_matches(name, known, n=3)
        raise UserError(
            f"dataset {name!r}: D4RL has none of this name; near it: {', '.join(near) or 'none'}"
        )
    if infos:
        return [infos.DATASET_URLS[name].rsplit("/", 1)[-1], f"{name}.hdf5"]
    if not known:
        return [f"{name}.hdf5"]
    # D4RL's rule for its robots since v1: hopper-medium-replay-v2 -> hopper_medium_replay-v2
    stem, version = name.rsplit("-", 1)
    return [f"{stem.replace('-', '_')}-{version}.hdf5", f"{name}.hdf5"]


def _download(name: str, infos: ModuleType | None, path: Path) -> None:
    """Download the dataset to `path`; the error says how else to place it there."""
    if infos is None:
        raise UserError(
            f"dataset {name!r}: no file {path}; place it there, or let it be downloaded after: "
            "pip install d4rl==1.1"
        )
    address = infos.DATASET_URLS[name]
    try:
        download(address, path)
    except OSError as error:
        raise UserError(
            f"dataset {name!r}: cannot download {address} ({one_line(error)}); run again to go on "
            f"where it stopped, or place the file at {path}"
        ) from error

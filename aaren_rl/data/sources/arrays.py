"""Episodes of one's own in `.npz` and JSON files."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.data.episode import Recording, Trajectory
from aaren_rl.data.flat import NAMES, as_trajectory, flat_arrays, flat_episodes
from aaren_rl.data.spaces import read_as
from aaren_rl.errors import UserError, one_line

KNOWN = frozenset(name for names in NAMES.values() for name in names)
"""The arrays that are read; others may be of any kind, such as pickled `infos`."""


def npz_source(name: str, episode_length: int | None = None) -> Recording | None:
    """A file of NumPy's `savez`: flat arrays of all steps of all episodes.

    `observations`, `actions`, `rewards`, and `terminals` and `timeouts` (or `terminations` and
    `truncations`), with a row for each step.
    """
    path = Path(name).expanduser()
    if path.suffix != ".npz" or not path.is_file():
        return None
    given, place = {}, ""
    try:
        with np.load(path, allow_pickle=False) as file:
            for key in [each for each in file.files if each in KNOWN]:
                place = f"array {key!r}: "
                given[key] = file[key]
    except Exception as error:  # zipfile, its compressions and NumPy raise many kinds
        raise UserError(f"{path}: does not read as .npz: {place}{one_line(error)}") from error
    return _flat(path, "a .npz file", given, episode_length)


def json_source(name: str, episode_length: int | None = None) -> Recording | None:
    """A JSON file: a list of episodes, or flat arrays as in `.npz`.

    An episode is an object as in `TrajectoryDataset.from_episodes`; the list may stand under the
    key `episodes`.
    """
    path = Path(name).expanduser()
    if path.suffix != ".json" or not path.is_file():
        return None
    try:
        content = json.loads(path.read_bytes())  # UTF-8, UTF-16 or UTF-32, with a mark or without
    except (OSError, ValueError, RecursionError) as error:
        raise UserError(f"{path}: does not read as JSON: {one_line(error)}") from error
    if isinstance(content, dict) and "episodes" in content:
        content = content["episodes"]
    if isinstance(content, dict):
        kind = "a JSON file of flat arrays"
        with read_as(str(path), kind):
            given = {
                key: _array(f"{path}: {key}", values)
                for key, values in content.items()
                if key in KNOWN and values is not None
            }
        return _flat(path, kind, given, episode_length)
    if not isinstance(content, list):
        raise UserError(f"{path}: a list of episodes or flat arrays expected in a JSON file")

    def episodes() -> Iterator[Trajectory]:
        for index, episode in enumerate(content):
            yield as_trajectory(f"{path}: episode {index}", episode)

    return Recording(path.stem, episodes, "a JSON file of episodes", str(path), files=[path])


def _array(where: str, values: Any) -> Any:
    """A JSON list as an array; an object of lists as a dictionary of arrays."""
    if isinstance(values, dict):
        return {key: _array(f"{where}: {key}", part) for key, part in values.items()}
    try:
        return np.asarray(values)
    except (ValueError, OverflowError):
        raise UserError(f"{where}: rows of different lengths; equal lengths expected") from None


def _flat(path: Path, kind: str, given: Mapping[str, Any], length: int | None) -> Recording:
    where = str(path)
    with read_as(where, kind):
        arrays = flat_arrays(where, kind, given)
    return Recording(
        name=path.stem,
        episodes=lambda: flat_episodes(where, arrays, length),
        kind=kind,
        where=where,
        files=[path],
        to_the_end=lambda: flat_episodes(where, arrays, length, last_observation=True),
    )

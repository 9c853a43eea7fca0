"""D4RL's HDF5 files: all steps of all episodes in flat arrays.

The package `d4rl` does not import beside a modern stack, and only one of its files is needed:
`infos.py`, plain data that knows the address and the reference scores of every dataset.
"""

from __future__ import annotations

import difflib
import importlib.util
import os
import re
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.sources.download import download
from aaren_rl.data.sources.hdf5 import open_hdf5, read_array
from aaren_rl.data.spaces import flat_size
from aaren_rl.data.trajectory import Builder, Trajectory, TrajectoryDataset
from aaren_rl.errors import UserError, one_line
from aaren_rl.robots import ROBOTS, Robot, reference_scores, words

NAME = re.compile(
    r"(bullet-)?(ant|antmaze|carla|door|flow|halfcheetah|hammer|hopper|kitchen|maze2d|minigrid|pen"
    r"|relocate|walker2d)-[a-z0-9-]+-v\d+"
)
QUALITIES = ("random", "medium", "expert", "medium-replay", "full-replay", "medium-expert")
FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")
BLOCK = 1 << 14  # steps read at a time


def read_d4rl(
    path: Path,
    *,
    name: str | None = None,
    scores: tuple[float, float] | None = None,
    build: Builder = TrajectoryDataset.from_episodes,
) -> TrajectoryDataset:
    """Read a file in D4RL's layout.

    Episodes end where `terminals` or `timeouts` is set; steps after the last such end are read as
    a truncated episode (which `load_trajectories` leaves out by default).

    Args:
        path: the file.
        name: the dataset's name; the file's if left out.
        scores: reference (minimum, maximum) returns; D4RL's by the name if left out.
        build: makes the dataset of the episodes, with the arguments of
            `TrajectoryDataset.from_episodes`.

    Raises:
        UserError: not a whole HDF5 file, a missing array, arrays of different lengths, no steps,
            NaN or infinity.
    """
    name = name or path.stem
    with open_hdf5(path) as file:
        check_d4rl(path, file)
        observation_shape = file["observations"].shape[1:]
        action_space = d4rl_action_space(f"{path}: actions", file["actions"])
    sizes = int(np.prod(observation_shape)), flat_size(action_space)
    return build(
        _episodes(path),
        name=name,
        observation_space=spaces.Box(-np.inf, np.inf, observation_shape, np.float32),
        action_space=action_space,
        reference_scores=scores or reference_scores(name, sizes=sizes),
        source=str(path),
    )


def check_d4rl(path: Path, file: h5py.File) -> int:
    """Check that a file has the arrays that make episodes, with as many rows; gives the number.

    Raises:
        UserError: otherwise.
    """
    if "episode_0" in file:
        raise UserError(f"{path}: Minari's layout; give the folder with its metadata.json")
    for field in FIELDS:
        if not isinstance(file.get(field), h5py.Dataset):
            raise UserError(f"{path}: array {field!r} missing; a D4RL file has {', '.join(FIELDS)}")
        if not file[field].shape:
            raise UserError(f"{path}: {field}: a single value; an array expected")
    steps = len(file["actions"])
    for field in FIELDS:
        if len(file[field]) != steps:
            raise UserError(
                f"{path}: {len(file[field])} rows of {field} for {steps} actions; "
                "equal numbers expected"
            )
    for field in ("rewards", "terminals", "timeouts"):
        if file[field].size != steps:
            shape = list(file[field].shape)
            raise UserError(f"{path}: {field} of shape {shape}; one value a step expected")
    return steps


def unfinished_d4rl(path: Path) -> Literal["last", "only"] | None:
    """Whether a D4RL file's last episode has no end, and then whether it is the only one.

    Raises:
        UserError: as `read_d4rl`.
    """
    with open_hdf5(path) as file:
        steps = check_d4rl(path, file)
        ends = np.zeros(steps, dtype=bool)
        for field in ("terminals", "timeouts"):
            ends |= read_array(f"{path}: {field}", file[field]).reshape(-1).astype(bool)
    if steps == 0 or ends[-1]:
        return None
    return "last" if ends.any() else "only"


def _episodes(path: Path) -> Iterator[Trajectory]:
    """Read block by block, and cut after each terminal or timeout."""
    begun: list[dict[str, NDArray[Any]]] = []  # parts of an episode that goes on
    with open_hdf5(path) as file:
        for start in range(0, len(file["actions"]), BLOCK):
            rows = slice(start, start + BLOCK)
            block = {name: read_array(f"{path}: {name}", file[name], rows) for name in FIELDS}
            for field in ("terminals", "timeouts"):
                block[field] = block[field].reshape(-1).astype(bool)
            low = 0
            for high in (np.flatnonzero(block["terminals"] | block["timeouts"]) + 1).tolist():
                yield _episode([*begun, {name: block[name][low:high] for name in FIELDS}])
                begun, low = [], high
            if low < len(block["actions"]):
                begun.append({name: block[name][low:] for name in FIELDS})
    if begun:
        yield _episode(begun)


def _episode(parts: list[dict[str, NDArray[Any]]]) -> Trajectory:
    """One episode of its parts."""
    whole = parts[0]
    if len(parts) > 1:
        whole = {name: np.concatenate([part[name] for part in parts]) for name in FIELDS}
    terminated = bool(whole["terminals"][-1])
    return Trajectory(
        observations=whole["observations"],
        actions=whole["actions"],
        rewards=whole["rewards"],
        terminated=terminated,
        truncated=bool(whole["timeouts"][-1]) or not terminated,
    )


def d4rl_action_space(where: str, actions: h5py.Dataset) -> spaces.Space[Any]:
    """Discrete for one integer a step, else a Box from -1 to 1, as D4RL's robots have."""
    if not (np.issubdtype(actions.dtype, np.integer) and actions.size == len(actions)):
        return spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)
    highest = 0
    for start in range(0, len(actions), BLOCK):
        block = read_array(where, actions, slice(start, start + BLOCK))
        highest = max(highest, int(block.max(initial=0)))
    return spaces.Discrete(highest + 1)


def is_d4rl_name(source: str) -> bool:
    """Whether `source` is named as D4RL names its datasets: `hopper-medium-v2`."""
    return NAME.fullmatch(source) is not None


def find_d4rl(name: str) -> tuple[Path, tuple[float, float] | None]:
    """The file of a D4RL dataset, in D4RL's cache folder or else downloaded there, and its scores.

    Raises:
        UserError: no such dataset, or the file is neither there nor can it be downloaded; the
            message says which file to place where.
    """
    infos = _load_infos()
    folder = cache_folder()
    candidates = [folder / file for file in _file_names(name, infos)]
    path = next((file for file in candidates if file.is_file()), None)
    if path is None:
        path = candidates[0]
        _download(name, infos, path)
    return path, _infos_scores(name, infos)


def cache_folder() -> Path:
    """Where D4RL keeps its files: `D4RL_DATASET_DIR`, else `~/.d4rl/datasets`."""
    default = Path.home() / ".d4rl" / "datasets"
    return Path(os.environ.get("D4RL_DATASET_DIR") or default).expanduser()


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
    """The files that the dataset may be in, D4RL's own name first.

    Raises:
        UserError: D4RL has no dataset of this name.
    """
    known = infos.DATASET_URLS if infos else _robot_datasets(ROBOTS.get(words(name)[0]))
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


def _robot_datasets(robot: Robot | None) -> list[str]:
    """The names of D4RL's datasets of a robot; none for other tasks."""
    versions = ("v0", "v1", "v2")
    names = (f"{robot.name}-{quality}" for quality in QUALITIES) if robot else ()
    return [f"{name}-{version}" for name in names for version in versions]


def _infos_scores(name: str, infos: ModuleType | None) -> tuple[float, float] | None:
    """Reference scores of a dataset from D4RL's own table, if it has them."""
    if infos is None or name not in infos.REF_MIN_SCORE or name not in infos.REF_MAX_SCORE:
        return None
    return float(infos.REF_MIN_SCORE[name]), float(infos.REF_MAX_SCORE[name])


def _download(name: str, infos: ModuleType | None, path: Path) -> None:
    """Download the dataset to `path`, or raise a UserError that says how else to get it there."""
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

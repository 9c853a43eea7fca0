"""Minari datasets, read from their folder.

A folder holds `data/metadata.json` and, in the HDF5 format, `data/main_data.hdf5` with one group
an episode: T + 1 observations, T actions, rewards, terminations and truncations.
"""

from __future__ import annotations

import difflib
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import h5py
import minari
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.storage import remotes as minari_remotes

from aaren_rl.data.sources.hdf5 import open_hdf5, read_array
from aaren_rl.data.spaces import flat_size
from aaren_rl.data.trajectory import Builder, Trajectory, TrajectoryDataset
from aaren_rl.errors import UserError, one_line
from aaren_rl.robots import reference_scores

METADATA = "metadata.json"
HDF5_FILE = "main_data.hdf5"
CONNECTION_SECONDS = 10.0


def is_minari_folder(path: Path) -> bool:
    """Whether `path` is a Minari dataset folder, or the `data` folder inside one."""
    return (path / "data").is_dir() or (path / METADATA).is_file()


def read_minari(
    folder: Path, *, build: Builder = TrajectoryDataset.from_episodes
) -> TrajectoryDataset:
    """Read a Minari dataset from its folder (the one that holds `data`).

    Args:
        folder: where it lies.
        build: makes the dataset of the episodes, with the arguments of
            `TrajectoryDataset.from_episodes`.

    Raises:
        UserError: metadata missing or broken, a format that Minari cannot read, or episodes that
            do not fit together; the message names file, episode and field.
    """
    data = folder / "data" if (folder / "data").is_dir() else folder
    metadata = read_metadata(data / METADATA)
    if metadata["data_format"] == "hdf5" and not (data / HDF5_FILE).is_file():
        raise UserError(f"{data / HDF5_FILE}: no such file; a Minari dataset in HDF5 has it")
    try:
        dataset = minari.MinariDataset(data)
        # the environment meant for evaluation, where the dataset has one of its own
        env_spec = getattr(dataset, "_eval_env_spec", None) or dataset.env_spec
    except Exception as error:  # Minari raises whatever its parsers raise
        raise UserError(f"{data / METADATA}: Minari cannot read it: {one_line(error)}") from error
    if metadata["data_format"] == "hdf5" and not _has_images(dataset.observation_space):
        source = data / HDF5_FILE
        episodes = _hdf5_episodes(source, dataset)
    else:
        source = data
        episodes = _minari_episodes(source, dataset)
    return build(
        episodes,
        name=dataset.id,
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=env_spec,
        reference_scores=_reference_scores(metadata, dataset, env_spec),
        source=str(source),
    )


def unfinished_minari(folder: Path) -> Literal["last", "only"] | None:
    """The same as `unfinished_d4rl`, for what `aaren-rl convert` has made of a D4RL file.

    Raises:
        UserError: metadata missing or broken.
    """
    data = folder / "data" if (folder / "data").is_dir() else folder
    metadata = read_metadata(data / METADATA)
    form = metadata.get("d4rl")
    if not (isinstance(form, dict) and form.get("unfinished")):
        return None
    return "only" if metadata["total_episodes"] == 1 else "last"


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata, with the keys that Minari needs."""
    try:
        metadata = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file; a Minari dataset has one") from None
    except (OSError, ValueError) as error:
        raise UserError(f"{path}: JSON expected: {one_line(error)}") from error
    missing = [
        key
        for key in ("dataset_id", "data_format", "total_episodes", "total_steps", "minari_version")
        if not isinstance(metadata, dict) or key not in metadata
    ]
    if missing:
        raise UserError(f"{path}: key {missing[0]!r} missing; a Minari dataset has it")
    return dict(metadata)


def _reference_scores(
    metadata: dict[str, Any], dataset: minari.MinariDataset, env_spec: EnvSpec | None
) -> tuple[float, float] | None:
    """The dataset's own reference scores, else D4RL's by its id."""
    lowest, highest = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if lowest is None or highest is None:
        sizes = flat_size(dataset.observation_space), flat_size(dataset.action_space)
        return reference_scores(metadata["dataset_id"], env_spec, sizes)
    return float(lowest), float(highest)


def _hdf5_episodes(path: Path, dataset: minari.MinariDataset) -> Iterator[Trajectory]:
    """The episodes of a Minari HDF5 file, in order, read straight and without their infos."""
    with open_hdf5(path) as file:
        for index in range(dataset.total_episodes):
            yield _hdf5_episode(path, file, index, dataset)


def _hdf5_episode(
    path: Path, file: h5py.File, index: int, dataset: minari.MinariDataset
) -> Trajectory:
    """One episode group as it was recorded."""
    where = f"{path}: episode {index}"
    group = file.get(f"episode_{index}")
    if not isinstance(group, h5py.Group):
        raise UserError(
            f"{where}: no group 'episode_{index}'; {dataset.total_episodes} episodes expected"
        )
    values = {
        "observations": _read_values(where, group, "observations", dataset.observation_space),
        "actions": _read_values(where, group, "actions", dataset.action_space),
        **{
            field: _read_values(where, group, field, None)
            for field in ("rewards", "terminations", "truncations")
        },
    }
    return _trajectory(where, values)


def _read_values(where: str, group: h5py.Group, field: str, space: spaces.Space[Any] | None) -> Any:
    """An array; for a Dict or Tuple space, Minari's group of arrays as a dict or tuple."""
    if field not in group:
        raise UserError(f"{where}: field {field!r} missing in {group.name}")
    node = group[field]
    if isinstance(space, (spaces.Dict, spaces.Tuple)):
        if not isinstance(node, h5py.Group):
            raise UserError(f"{where}: {node.name} is an array; a group expected for {space}")
        if isinstance(space, spaces.Dict):
            return {key: _read_values(where, node, key, part) for key, part in space.items()}
        return tuple(_read_values(where, node, f"_index_{i}", part) for i, part in enumerate(space))
    if not isinstance(node, h5py.Dataset):
        raise UserError(f"{where}: {node.name} is a group; an array expected")
    return read_array(f"{where}: {field}", node)


def _minari_episodes(data: Path, dataset: minari.MinariDataset) -> Iterator[Trajectory]:
    """Episodes by way of Minari: Arrow and Parquet files, and compressed images."""
    try:
        for index, episode in enumerate(dataset.iterate_episodes()):
            fields = ("observations", "actions", "rewards", "terminations", "truncations")
            values = {field: getattr(episode, field) for field in fields}
            yield _trajectory(f"{data}: episode {index}", values)
    except UserError:
        raise
    except Exception as error:  # Minari raises whatever its formats' libraries raise
        raise UserError(f"{data}: Minari cannot read it: {one_line(error)}") from error


def _trajectory(where: str, values: dict[str, Any]) -> Trajectory:
    """Check what is Minari's alone: one observation more than actions, and the final flags."""
    steps = len(values["actions"])
    rows = _first_length(values["observations"])
    if rows != steps + 1:
        raise UserError(
            f"{where}: {rows} observations for {steps} actions; Minari stores {steps + 1}"
        )
    for field in ("terminations", "truncations"):
        if len(values[field]) != steps:
            raise UserError(
                f"{where}: {len(values[field])} {field} for {steps} actions; {steps} expected"
            )
    terminated = bool(steps and values["terminations"][-1])
    return Trajectory(
        observations=values["observations"],
        actions=values["actions"],
        rewards=values["rewards"],
        terminated=terminated,
        # a recording that stops with neither flag was cut short
        truncated=bool(steps and values["truncations"][-1]) or not terminated,
    )


def _first_length(values: Any) -> int:
    """Rows of an array, or of the first array of a composite observation."""
    while isinstance(values, (dict, tuple)):
        values = next(iter(values.values())) if isinstance(values, dict) else values[0]
    return len(values)


def _has_images(space: spaces.Space[Any]) -> bool:
    """Whether Minari may have stored parts of this space as compressed images."""
    if isinstance(space, spaces.Dict):
        return any(_has_images(part) for part in space.values())
    if isinstance(space, spaces.Tuple):
        return any(_has_images(part) for part in space)
    return isinstance(space, spaces.Box) and space.dtype == np.uint8 and len(space.shape) > 1


def local_root() -> Path:
    """The folder of the local Minari datasets: `MINARI_DATASETS_PATH`, or Minari's default."""
    default = Path.home() / ".minari" / "datasets"
    return Path(os.environ.get("MINARI_DATASETS_PATH") or default).expanduser()


def is_minari_id(source: str) -> bool:
    """Whether `source` is named as Minari names its datasets: `mujoco/hopper/medium-v0`."""
    match = DATASET_ID_RE.fullmatch(source)
    return match is not None and match["version"] is not None


def download_minari(dataset_id: str, known: Sequence[str] = ()) -> Path:
    """Let Minari download a dataset into its local root; gives its folder there.

    Args:
        dataset_id: what Minari's server calls it.
        known: ids of datasets elsewhere on this machine, for the suggestions in the error.

    Raises:
        UserError: Minari's server does not have it or cannot be reached.
    """
    try:
        _check_connection()
        minari.download_dataset(dataset_id)
    except Exception as error:  # Minari raises whatever its storage libraries raise
        here = [*local_ids(local_root()), *known]
        near = difflib.get_close_matches(dataset_id, here, n=3, cutoff=0.5)
        raise UserError(
            f"dataset {dataset_id!r}: not in {local_root()} (near it on this machine: "
            f"{', '.join(near) or 'none'}), and Minari cannot download it: {one_line(error)}"
        ) from error
    return local_root() / dataset_id


def local_ids(root: Path) -> list[str]:
    """Ids of the datasets under a Minari root."""
    return sorted(
        file.parent.parent.relative_to(root).as_posix() for file in root.rglob(f"data/{METADATA}")
    )


def _check_connection() -> None:
    """Raise OSError if Minari's server cannot be reached at all.

    Minari's client would try for half a minute and print every attempt.
    """
    if not os.environ.get("MINARI_REMOTE", minari_remotes.DEFAULT_REMOTE).startswith("hf://"):
        return
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        urllib.request.urlopen(address, timeout=CONNECTION_SECONDS).close()
    except urllib.error.HTTPError:
        return  # an answer, if not a friendly one
    except urllib.error.URLError as error:
        if isinstance(error.reason, ssl.SSLError):
            return  # an answer too; Minari's client has certificates of its own
        raise OSError(f"no connection to {address} ({error.reason})") from error

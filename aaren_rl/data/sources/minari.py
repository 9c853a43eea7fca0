"""Minari datasets, read from their folder.

A folder holds `data/metadata.json` and, in the HDF5 format, `data/main_data.hdf5` with one group
an episode: T + 1 observations, T actions, rewards, terminations and truncations.
"""

from __future__ import annotations

import difflib
import json
import math
import os
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_dataset import DATASET_ID_RE
from minari.storage import remotes as minari_remotes

from aaren_rl.data.episode import Recording, Trajectory, warn_once
from aaren_rl.data.sources.hdf5 import ArrayReader, group_name, open_hdf5
from aaren_rl.data.spaces import flags, flat_size, named, read_as, row_count
from aaren_rl.errors import UserError, one_line
from aaren_rl.files import read_bytes
from aaren_rl.layout import Layout
from aaren_rl.robots import reference_scores

KIND = "a Minari dataset"
METADATA = "metadata.json"
HDF5_FILE = "main_data.hdf5"
TEXTS = ("dataset_id", "data_format", "minari_version", "observation_space", "action_space")
FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")
CONNECTION_SECONDS = 10.0
SHIPPED_ROOT = Path(__file__).parent.parent / "datasets"  # laid out as a Minari root


def is_minari_folder(path: Path) -> bool:
    """Whether `path` is a Minari dataset folder, or the `data` folder inside one."""
    return (path / "data").is_dir() or (path / METADATA).is_file()


def minari_source(name: str) -> Recording | None:
    """A Minari dataset by its folder, or by its id in this package or in the local Minari root."""
    path = Path(name).expanduser()
    if path.is_file() and path.name == HDF5_FILE:
        return open_minari(path.parent)
    if path.is_dir() and is_minari_folder(path):
        return open_minari(path)
    if path.is_file() or not is_minari_id(name):
        return None
    for root in (SHIPPED_ROOT, local_root()):
        if is_minari_folder(root / name):
            return open_minari(root / name)
    return None


def minari_download(name: str) -> Recording | None:
    """A Minari dataset that is not on this machine: Minari downloads it into its local root."""
    if Path(name).expanduser().is_file() or not is_minari_id(name):
        return None
    try:
        _check_connection()
        minari.download_dataset(name)
    except Exception as error:  # Minari raises whatever its storage libraries raise
        here = [*local_ids(local_root()), *local_ids(SHIPPED_ROOT)]
        near = difflib.get_close_matches(name, here, n=3, cutoff=0.5)
        raise UserError(
            f"dataset {name!r}: not in {local_root()} (near it on this machine: "
            f"{', '.join(near) or 'none'}), and Minari cannot download it: {one_line(error)}"
        ) from error
    return open_minari(local_root() / name)


def open_minari(folder: Path) -> Recording:
    """Open a Minari dataset in its folder (the one that holds `data`, or `data` itself)."""
    data = folder / "data" if (folder / "data").is_dir() else folder
    with read_as(str(data), KIND):
        return _open(folder, data)


def _open(folder: Path, data: Path) -> Recording:
    metadata = read_metadata(data / METADATA)
    hdf5 = metadata["data_format"] == "hdf5"
    if hdf5 and not (data / HDF5_FILE).is_file():
        raise UserError(f"{data / HDF5_FILE}: no such file; a Minari dataset in HDF5 has it")
    try:
        dataset = minari.MinariDataset(data)
        # the environment meant for evaluation, where the dataset has one of its own
        env_spec = getattr(dataset, "_eval_env_spec", None) or dataset.env_spec
    except Exception as error:  # Minari raises whatever its parsers raise
        unknown = isinstance(error, KeyError) and error.args == (metadata["data_format"],)
        raise UserError(
            f"{data / METADATA}: Minari cannot read it: "
            f"{'data_format: ' if unknown else ''}{one_line(error)}"
        ) from error
    with named(f"{data}: observations"):
        leaves = Layout.of(dataset.observation_space).leaves
    with named(f"{data}: actions"):
        Layout.of(dataset.action_space)
    images = any(leaf.dtype == "uint8" and len(leaf.shape) > 1 for leaf in leaves)
    packed = images and bool(metadata.get("jpeg_encoding", True))  # Minari compresses by default
    straight = hdf5 and not packed
    where = data / HDF5_FILE if straight else data
    form = metadata.get("d4rl")  # written by `aaren-rl convert`
    unfinished = isinstance(form, dict) and bool(form.get("unfinished"))

    def episodes() -> Iterator[Trajectory]:
        read = _hdf5_episodes if straight else _minari_episodes
        last = dataset.total_episodes - 1
        for index, episode in enumerate(read(where, dataset)):
            if index == last and unfinished and not episode.terminated:
                episode = replace(episode, truncated=False)
            yield episode

    return Recording(
        name=dataset.id,
        episodes=episodes,
        kind=KIND,
        where=str(where),
        observation_space=dataset.observation_space,
        action_space=dataset.action_space,
        env_spec=env_spec,
        reference_scores=_reference_scores(data / METADATA, metadata, dataset, env_spec),
        files=sorted(file for file in folder.rglob("*") if file.is_file()),
    )


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata, with the keys that Minari needs."""
    content = read_bytes(path)
    try:
        metadata = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{path}: JSON expected: {one_line(error)}") from error
    for key in ("dataset_id", "data_format", "total_episodes", "total_steps", "minari_version"):
        if not isinstance(metadata, dict) or key not in metadata:
            raise UserError(f"{path}: key {key!r} missing; a Minari dataset has it")
    spaces_there = metadata.get("observation_space") and metadata.get("action_space")
    if not spaces_there and metadata.get("env_spec") is None:
        raise UserError(
            f"{path}: observation_space and action_space expected, or an env_spec to take them from"
        )
    _check_values(path, metadata)
    return dict(metadata)


def _check_values(path: Path, metadata: dict[str, Any]) -> None:
    """Raise UserError that names the field where Minari's assertions do not name it."""
    for key in TEXTS:
        if not isinstance(metadata.get(key, ""), str):
            raise UserError(f"{path}: {key}: text expected, got {metadata[key]!r:.80}")
    count = metadata["total_episodes"]
    if type(count) not in (int, float) or count < 0 or count != count // 1:
        raise UserError(
            f"{path}: Minari cannot read it: total_episodes: a whole number expected, got "
            f"{count!r:.80}"
        )
    for key in ("env_spec", "eval_env_spec"):
        if (text := metadata.get(key)) is None:
            continue
        try:
            fits = {"id", "additional_wrappers"} <= json.loads(text).keys()
        except (TypeError, ValueError, AttributeError, RecursionError):
            fits = False
        if not fits:
            raise UserError(
                f"{path}: {key}: the JSON text of a Gymnasium EnvSpec, with id and "
                f"additional_wrappers, expected, got {text!r:.80}"
            )


def _reference_scores(
    path: Path, metadata: dict[str, Any], dataset: minari.MinariDataset, env_spec: EnvSpec | None
) -> tuple[float, float] | None:
    """The dataset's own reference scores, else D4RL's by its id."""
    lowest, highest = metadata.get("ref_min_score"), metadata.get("ref_max_score")
    if lowest is None or highest is None:
        sizes = flat_size(dataset.observation_space), flat_size(dataset.action_space)
        return reference_scores(metadata["dataset_id"], env_spec, sizes)
    try:
        scores = float(lowest), float(highest)
    except (TypeError, ValueError, OverflowError):
        scores = math.nan, math.nan
    if not all(map(math.isfinite, scores)):
        raise UserError(
            f"{path}: ref_min_score and ref_max_score: finite numbers expected, got "
            f"{lowest!r:.80} and {highest!r:.80}"
        )
    return scores


def _hdf5_episodes(path: Path, dataset: minari.MinariDataset) -> Iterator[Trajectory]:
    """The episodes of a Minari HDF5 file, in order, read straight and without their infos."""
    spaces_of = {"observations": dataset.observation_space, "actions": dataset.action_space}
    with open_hdf5(path) as file:
        if f"episode_{dataset.total_episodes}" in file:
            there = sum(name.startswith("episode_") for name in file)
            warn_once(
                f"{path}: {there} episodes, and total_episodes in {METADATA} is "
                f"{dataset.total_episodes}: only as many are read"
            )
        reader = ArrayReader(file)
        for index in range(dataset.total_episodes):
            try:
                group = reader.group(f"episode_{index}")
                if group is None:
                    raise UserError(
                        f"no group 'episode_{index}'; {dataset.total_episodes} episodes expected"
                    )
                values = {
                    field: _read_values(reader, group, field, spaces_of.get(field))
                    for field in FIELDS
                }
                yield _trajectory(path, values)
            except UserError as error:
                raise UserError(f"{path}: episode {index}: {error}") from None


def _read_values(
    reader: ArrayReader, group: h5py.h5g.GroupID, field: str, space: spaces.Space[Any] | None
) -> Any:
    """An array; for a Dict or Tuple space, Minari's group of arrays as a dict or tuple."""
    if not isinstance(space, (spaces.Dict, spaces.Tuple)):
        return reader.array(group, field)
    path = f"{group_name(group)}/{field}"
    parts = reader.group(path)
    if parts is None:
        what = "is an array" if field.encode() in group else "is missing"
        raise UserError(f"{path} {what}; a group expected for {space}")
    if isinstance(space, spaces.Dict):
        return {key: _read_values(reader, parts, key, part) for key, part in space.items()}
    return tuple(_read_values(reader, parts, f"_index_{i}", part) for i, part in enumerate(space))


def _minari_episodes(data: Path, dataset: minari.MinariDataset) -> Iterator[Trajectory]:
    """Episodes by way of Minari: Arrow and Parquet files, and compressed images."""
    try:
        for index, episode in enumerate(dataset.iterate_episodes()):
            with named(f"{data}: episode {index}"):
                yield _trajectory(data, {field: getattr(episode, field) for field in FIELDS})
    except UserError:
        raise
    except Exception as error:  # Minari raises whatever its formats' libraries raise
        raise UserError(f"{data}: Minari cannot read it: {one_line(error)}") from error


def _trajectory(where: Path, values: dict[str, Any]) -> Trajectory:
    """An episode, after a check of what other formats lack: T + 1 observations, T flags.

    Warns of a flag before the last step: Minari groups steps into episodes itself.
    """
    steps = row_count(values["actions"])
    rows = row_count(values["observations"])
    if rows != steps + 1:
        raise UserError(f"{rows} observations for {steps} actions; Minari stores {steps + 1}")
    ends = {}
    for field in ("terminations", "truncations"):
        with named(field):
            marks = flags(values[field])
        if len(marks) != steps:
            raise UserError(f"{len(marks)} {field} for {steps} actions; {steps} expected")
        if marks[:-1].any():
            warn_once(f"{where}: {field} before the last step of an episode, which is taken whole")
        ends[field] = bool(steps and marks[-1])
    return Trajectory(
        observations=values["observations"],
        actions=values["actions"],
        rewards=values["rewards"],
        terminated=ends["terminations"],
        # a recording that stops with neither flag was cut short
        truncated=ends["truncations"] or not ends["terminations"],
    )


def local_root() -> Path:
    """The folder of the local Minari datasets: `MINARI_DATASETS_PATH`, or Minari's default."""
    default = Path.home() / ".minari" / "datasets"
    return Path(os.environ.get("MINARI_DATASETS_PATH") or default).expanduser()


def is_minari_id(source: str) -> bool:
    """Whether `source` is named as Minari names its datasets: `mujoco/hopper/medium-v0`."""
    match = DATASET_ID_RE.fullmatch(source)
    return match is not None and match["version"] is not None


def local_ids(root: Path) -> list[str]:
    """Ids of the datasets under a Minari root."""
    return sorted(
        file.parent.parent.relative_to(root).as_posix() for file in root.rglob(f"data/{METADATA}")
    )


def _check_connection() -> None:
    """Raise OSError if Minari's server cannot be reached.

    Minari's client would try for half a minute and print every attempt.
    """
    import requests  # only here: it takes a while to import

    if not os.environ.get("MINARI_REMOTE", minari_remotes.DEFAULT_REMOTE).startswith("hf://"):
        return
    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        requests.head(address, timeout=CONNECTION_SECONDS)
    except requests.exceptions.SSLError:
        return  # it answers; Minari's client has its own certificates
    except requests.RequestException as error:
        raise OSError(f"no connection to {address} ({one_line(error)})") from error

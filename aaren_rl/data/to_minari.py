"""Writing Minari datasets: whole or not there, and quickly for many short episodes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_storage import MinariStorage

from aaren_rl.data.episode import Trajectory
from aaren_rl.data.sources.minari import HDF5_FILE, is_minari_id, local_root
from aaren_rl.errors import UserError
from aaren_rl.files import sync_file, sync_folder

SCRATCH = ".writing-"  # begins the folders that are not yet datasets


def write_minari(
    dataset_id: str,
    episodes: Iterable[Trajectory],
    *,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    env_spec: EnvSpec | None = None,
    root: Path | None = None,
    metadata: Mapping[str, Any] | None = None,
    compression: str | None = None,
    beside: Callable[[Path], None] | None = None,
) -> Path:
    """Write episodes as a Minari dataset in the HDF5 format, each as it comes.

    Args:
        dataset_id: the new dataset's id, `namespace/name-v0`.
        episodes: as recorded, each with one observation more than actions; both may be
            dictionaries or tuples of arrays. A last one with neither flag is noted as unfinished.
        observation_space: of one observation.
        action_space: of one action.
        env_spec: how to make the environment, options included.
        root: the Minari root to write into; by default the local one, `MINARI_DATASETS_PATH`.
        metadata: Minari's further keys: description, author, reference scores, ...
        compression: `gzip`, or None.
        beside: writes further files into the dataset's folder, before it takes its name.

    Returns:
        The dataset's folder.

    Raises:
        UserError: a name that Minari does not take, a dataset that is there already, an episode
            of T observations for T actions, or a root that cannot be written.
    """
    root = (local_root() if root is None else root).absolute()
    target = root / dataset_id
    check_new_dataset(dataset_id, root)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written ({error.strerror})") from None
    try:
        folder = scratch / target.name
        folder.mkdir()
        storage = MinariStorage.new(
            folder / "data", observation_space, action_space, env_spec=env_spec
        )
        file = folder / "data" / HDF5_FILE
        counts = _write_episodes(dataset_id, file, episodes, compression)
        sync_file(file)
        if beside is not None:
            beside(folder)
        own = {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "dataset_size": storage.get_size(),
        }
        storage.update_metadata({**own, **counts, **(metadata or {})})
        os.rename(folder, target)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    mark_namespaces(root, target)
    sync_folder(target.parent)
    return target


def check_new_dataset(dataset_id: str, root: Path) -> None:
    """Raise UserError unless a dataset of this id can be made under this Minari root."""
    if not is_minari_id(dataset_id):
        raise UserError(f"dataset {dataset_id!r}: an id such as namespace/name-v0 expected")
    if (root / dataset_id).exists():
        raise UserError(f"{root / dataset_id}: there already; remove it to make it anew")


def mark_namespaces(root: Path, dataset: Path) -> None:
    """Give each folder between root and dataset the file by which Minari knows a namespace."""
    for folder in dataset.relative_to(root).parents:
        marker = root / folder / "namespace_metadata.json"
        if folder != Path(".") and not marker.exists():
            marker.write_text(json.dumps({}))


def _write_episodes(
    name: str, path: Path, episodes: Iterable[Trajectory], compression: str | None
) -> dict[str, Any]:
    """Write the episode groups; gives the metadata that follow from them."""
    count = steps = 0
    unfinished = False
    # The file format of HDF5 1.10 is smaller and quicker for many groups than the oldest.
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for index, episode in enumerate(episodes):
            length = len(episode.rewards)
            unfinished = not (episode.terminated or episode.truncated)
            ends = np.zeros((2, length), bool)
            ends[:, -1] = episode.terminated, episode.truncated or unfinished
            group = file.create_group(f"episode_{index}")
            group.attrs["id"] = index
            group.attrs["total_steps"] = length
            where = f"{name}: episode {index}"
            _write(
                where, group, "observations", episode.observations, length + 1, length, compression
            )
            for field, values in (
                ("actions", episode.actions),
                ("rewards", np.asarray(episode.rewards, np.float64).reshape(length)),
                ("terminations", ends[0]),
                ("truncations", ends[1]),
            ):
                _write(where, group, field, values, length, length, compression)
            count, steps = count + 1, steps + length
    counts: dict[str, Any] = {"total_episodes": count, "total_steps": steps}
    return counts | {"d4rl": {"unfinished": True}} if unfinished else counts


def _write(
    where: str, group: h5py.Group, field: str, values: Any, rows: int, steps: int, compression: Any
) -> None:
    """Write an array, or a group of arrays as Minari lays out dictionaries and tuples."""
    if isinstance(values, (dict, tuple)):
        if isinstance(values, tuple):
            values = {f"_index_{i}": part for i, part in enumerate(values)}
        parts = group.create_group(field)
        for key, part in values.items():
            _write(where, parts, key, part, rows, steps, compression)
        return
    array = np.asarray(values)
    if len(array) != rows:
        raise UserError(f"{where}: {len(array)} {field} for {steps} actions; Minari stores {rows}")
    group.create_dataset(
        field, data=array, compression=compression, shuffle=compression is not None
    )

"""A small Minari dataset made of the first episodes of a large one.

This is how the dataset inside this package was made; see `scripts/make_hopper_small.py`.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
from minari.dataset.minari_storage import MinariStorage

from aaren_rl.data.sources.minari import HDF5_FILE
from aaren_rl.data.to_minari import mark_namespaces
from aaren_rl.errors import UserError

FIELDS = ("observations", "actions", "rewards", "terminations", "truncations")


def make_excerpt(
    source: Path,
    root: Path,
    dataset_id: str,
    *,
    environment_id: str,
    max_bytes: int,
    metadata: Mapping[str, Any],
) -> Path:
    """Copy as many whole episodes, from the first one in order, as fit in `max_bytes`.

    The numbers are copied bit by bit and compressed without loss.

    Args:
        source: folder of a Minari dataset in the HDF5 format, with array spaces.
        root: the Minari root to write into.
        dataset_id: the new dataset's id, `namespace/name-v0`.
        environment_id: the Gymnasium environment that the data come from.
        max_bytes: what all files of the new dataset together stay below.
        metadata: Minari's further keys: description, author, reference scores, ...

    Returns:
        The new dataset's folder.

    Raises:
        UserError: the folder is there already, or not even one episode fits.
    """
    target = root / dataset_id
    if target.exists():
        raise UserError(f"{target}: there already; remove it to make it anew")
    original = minari.MinariDataset(source / "data")
    with tempfile.TemporaryDirectory() as scratch:

        def attempt(episodes: int) -> Path:
            folder = Path(scratch) / str(episodes)
            _write(original, folder, dataset_id, environment_id, episodes, metadata)
            return folder

        fits, too_many = 0, original.total_episodes + 1
        while too_many - fits > 1:  # sizes grow with the number of episodes: halve the interval
            middle = (fits + too_many) // 2
            if _folder_bytes(attempt(middle)) < max_bytes:
                fits = middle
            else:
                too_many = middle
        if fits == 0:
            raise UserError(f"{dataset_id}: no episode of {source} fits in {max_bytes} bytes")
        shutil.copytree(Path(scratch) / str(fits), target)
    mark_namespaces(root, target)
    return target


def _write(
    original: minari.MinariDataset,
    folder: Path,
    dataset_id: str,
    environment_id: str,
    episodes: int,
    metadata: Mapping[str, Any],
) -> None:
    """Write the dataset of the first `episodes` episodes to `folder`."""
    folder.mkdir()
    storage = MinariStorage.new(
        folder / "data",
        original.observation_space,
        original.action_space,
        env_spec=gymnasium.spec(environment_id),
    )
    steps = _copy_episodes(original.storage.data_path, folder / "data", episodes)
    storage.update_metadata(
        {
            "dataset_id": dataset_id,
            "minari_version": minari.__version__,
            "total_episodes": episodes,
            "total_steps": steps,
            "dataset_size": storage.get_size(),
            **metadata,
        }
    )


def _copy_episodes(source: Path, target: Path, episodes: int) -> int:
    """Copy episode groups between `data` folders, compressed; gives the number of steps."""
    steps = 0
    # The file format of HDF5 1.10 needs a quarter less room than the oldest, and h5py reads it.
    with (
        h5py.File(source / HDF5_FILE, "r") as old,
        h5py.File(target / HDF5_FILE, "w", libver=("v110", "v110")) as new,
    ):
        for name in (f"episode_{index}" for index in range(episodes)):
            group = new.create_group(name)
            group.attrs.update(old[name].attrs)
            for field in FIELDS:
                values = old[name][field][()]
                group.create_dataset(
                    field,
                    data=values,
                    chunks=values.shape,
                    compression="gzip",
                    compression_opts=9,
                    shuffle=True,
                )
            steps += len(new[name]["actions"])
    return steps


def _folder_bytes(folder: Path) -> int:
    """Bytes of all files under a folder."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file())

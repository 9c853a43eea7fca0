"""Writing Minari datasets: whole or not there, and quickly for many short episodes."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.dataset.minari_storage import MinariStorage

from aaren_rl.data.sources.minari import HDF5_FILE, is_minari_id, local_root
from aaren_rl.data.trajectory import Trajectory
from aaren_rl.errors import UserError
from aaren_rl.files import sync_folder

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
    beside: Callable[[Path], None] | None = None,
) -> Path:
    """Write episodes as a Minari dataset in the HDF5 format, each as it comes.

    Args:
        dataset_id: the new dataset's id, `namespace/name-v0`.
        episodes: as recorded, each with one observation more than actions; array spaces.
        observation_space: of one observation.
        action_space: of one action.
        env_spec: how to make the environment, options included.
        root: the Minari root to write into; by default the local one, `MINARI_DATASETS_PATH`.
        metadata: Minari's further keys: description, author, reference scores, ...
        beside: writes further files into the dataset's folder, before it takes its name.

    Returns:
        The dataset's folder.

    Raises:
        UserError: a name that Minari does not take, a dataset that is there already, an episode
            of T observations for T actions, or a root that cannot be written.
    """
    root = local_root() if root is None else root
    with new_minari(
        dataset_id,
        root,
        observation_space=observation_space,
        action_space=action_space,
        env_spec=env_spec,
    ) as new:
        new.count(*_write_episodes(dataset_id, new.folder / "data" / HDF5_FILE, episodes))
        new.metadata.update(metadata or {})
        if beside is not None:
            beside(new.folder)
    return new.target


class NewMinari:
    """A Minari dataset that is being written.

    Attributes:
        folder: where it lies until it is whole.
        target: and then.
        metadata: what its metadata will have besides Minari's own keys.
    """

    def __init__(self, folder: Path, target: Path) -> None:
        self.folder, self.target = folder, target
        self.metadata: dict[str, Any] = {}

    def count(self, episodes: int, steps: int) -> None:
        """Say how much was written."""
        self.metadata.update(total_episodes=episodes, total_steps=steps)


@contextmanager
def new_minari(
    dataset_id: str,
    root: Path,
    *,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    env_spec: EnvSpec | None = None,
) -> Iterator[NewMinari]:
    """A new dataset for the length of a `with` block, which writes `data/main_data.hdf5`.

    It takes its name when the block has come through, and is gone otherwise. Args and errors are
    those of `write_minari`.
    """
    target = root / dataset_id
    check_new_dataset(dataset_id, root)
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        scratch = Path(tempfile.mkdtemp(prefix=SCRATCH, dir=target.parent))
    except OSError as error:
        raise UserError(f"{target.parent}: cannot be written ({error.strerror})") from None
    try:
        new = NewMinari(scratch / target.name, target)
        new.folder.mkdir()
        data = new.folder / "data"
        storage = MinariStorage.new(data, observation_space, action_space, env_spec=env_spec)
        yield new
        own = {"dataset_id": dataset_id, "minari_version": minari.__version__}
        size = storage.get_size()
        storage.update_metadata({**own, "dataset_size": size, **new.metadata})
        os.rename(new.folder, target)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    mark_namespaces(root, target)
    sync_folder(target.parent)


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


def _write_episodes(name: str, path: Path, episodes: Iterable[Trajectory]) -> tuple[int, int]:
    """Write the episode groups; gives the numbers of episodes and steps."""
    count = steps = 0
    # The file format of HDF5 1.10 is smaller and quicker for many groups than the oldest.
    with h5py.File(path, "w", libver=("v110", "v110")) as file:
        for index, episode in enumerate(episodes):
            length = len(episode.rewards)
            if len(episode.observations) != length + 1:
                raise UserError(
                    f"{name}: episode {index}: {len(episode.observations)} observations for "
                    f"{length} actions; Minari stores {length + 1}"
                )
            ends = np.zeros((2, length), bool)
            ends[:, -1] = episode.terminated, episode.truncated
            group = file.create_group(f"episode_{index}")
            group.attrs["id"] = index
            group.attrs["total_steps"] = length
            group["observations"] = episode.observations
            group["actions"] = episode.actions
            group["rewards"] = np.asarray(episode.rewards, np.float64)
            group["terminations"], group["truncations"] = ends
            count, steps = count + 1, steps + length
    return count, steps

"""Writing Minari datasets: whole or not there, and quickly for many short episodes."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
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
from aaren_rl.files import flush_to_disk, locked

_SCRATCH = ".writing-"  # begins the names of folders that are not yet datasets


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
        with _scratch(target) as folder:
            storage = MinariStorage.new(
                folder / "data",
                observation_space,
                action_space,
                env_spec=env_spec,
                jpeg_encoding=False,  # images keep their pixels
            )
            file = folder / "data" / HDF5_FILE
            counts = _write_episodes(dataset_id, file, episodes, compression)
            flush_to_disk(file)
            if beside is not None:
                beside(folder)
            own = {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "dataset_size": storage.get_size(),
            }
            storage.update_metadata({**own, **counts, **(metadata or {})})
            for namespace in target.relative_to(root).parents[:-1]:
                marker = root / namespace / "namespace_metadata.json"
                if not marker.exists():  # the file by which Minari knows a namespace
                    marker.write_text(json.dumps({}))
            os.rename(folder, target)
        flush_to_disk(target.parent)
    except OSError as error:
        raise UserError(f"{target}: cannot be written ({error.strerror or error})") from error
    return target


@contextlib.contextmanager
def _scratch(target: Path) -> Iterator[Path]:
    """A folder to be renamed to `target`; what a killed process left of it is removed."""
    scratch = target.with_name(f"{_SCRATCH}{target.name}")
    lock = scratch.with_name(f"{scratch.name}.lock")
    with locked(lock, f"{target}: another process is writing it"):
        try:
            check_new_dataset(target.name, target.parent)  # while this one waited, perhaps
            shutil.rmtree(scratch, ignore_errors=True)
            scratch.mkdir()
            yield scratch
        finally:
            shutil.rmtree(scratch, ignore_errors=True)
            lock.unlink(missing_ok=True)


def check_new_dataset(dataset_id: str, root: Path) -> None:
    """Raise UserError unless a dataset of this id can be made under this Minari root."""
    if not is_minari_id(dataset_id):
        raise UserError(f"dataset {dataset_id!r}: an id such as namespace/name-v0 expected")
    if (root / dataset_id).exists():
        raise UserError(f"{root / dataset_id}: there already; remove it to make it anew")


class _ErrorKeepingFile(io.FileIO):
    """A file that keeps the first error of writing, as on a full disk, and raises it in `check`.

    HDF5 cannot close a file that it could not write: it crashes the process.
    """

    error: OSError | None = None

    def write(self, content: Any) -> int:
        """Write all of it, or nothing after an error."""
        left = memoryview(content).cast("B")
        size = len(left)
        try:
            while self.error is None and len(left):
                left = left[super().write(left) :]
        except OSError as error:
            self.error = error
        return size

    def truncate(self, size: int | None = None) -> int:
        """HDF5 asks for it when it closes."""
        try:
            return super().truncate(size)
        except OSError as error:
            self.error = self.error or error
            return size or 0

    def check(self) -> None:
        """Raise the error that was kept."""
        if self.error is not None:
            raise self.error


@contextlib.contextmanager
def _new_hdf5(path: Path, **settings: Any) -> Iterator[tuple[h5py.File, Callable[[], None]]]:
    """A new HDF5 file, and a function that raises the first OSError of writing."""
    with _ErrorKeepingFile(path, "w+") as content:
        try:
            with h5py.File(content, "w", **settings) as file:
                yield file, content.check
        except (OSError, RuntimeError, ValueError):
            content.check()  # HDF5's own error is only the consequence
            raise
        content.check()


def _write_episodes(
    name: str, path: Path, episodes: Iterable[Trajectory], compression: str | None
) -> dict[str, Any]:
    """Write the episode groups; gives the metadata that follow from them."""
    count = steps = 0
    unfinished = False
    # The file format of HDF5 1.10 is smaller and quicker for many groups than the oldest.
    with _new_hdf5(path, libver=("v110", "v110")) as (file, check):
        for index, episode in enumerate(episodes):
            check()
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

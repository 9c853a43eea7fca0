"""Datasets that memory does not hold: on first use written to files that are read by rows.

A folder holds `steps.bin` with one record a step, all that training reads of it side by side
(observation, action, return-to-go, timestep: 64 bytes for Hopper); `rewards.bin`, float64; what
there is once an episode, as NumPy arrays; and `card.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from minari.serialization import deserialize_space, serialize_space

from aaren_rl.data.disk_rows import WORD, DiskRows, RowFile, RowMap
from aaren_rl.data.trajectory import (
    Builder,
    Trajectory,
    TrajectoryDataset,
    checked_episodes,
    returns_to_go,
)
from aaren_rl.errors import UserError
from aaren_rl.files import read_json, sync_folder, write_json

FORMAT = 1
STEPS_FILE, REWARDS_FILE, CARD_FILE = "steps.bin", "rewards.bin", "card.json"
EPISODE_ARRAYS = ("offsets", "terminated", "truncated")


def default_cache() -> Path:
    """`AAREN_RL_CACHE`, else the folder `aaren-rl` in the user's cache, `~/.cache` or elsewhere."""
    own = os.environ.get("AAREN_RL_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or Path(user) / "aaren-rl").expanduser()


def cached(
    read: Callable[[Builder], TrajectoryDataset], identity: list[Any], cache: Path
) -> TrajectoryDataset:
    """The dataset from the cache, after it was written there if need be.

    Processes that want the same dataset wait for the first one.

    Args:
        read: reads the episodes and gives them to a builder.
        identity: of the source, as JSON; another one is another entry.
        cache: the folder of all entries.

    Raises:
        UserError: the source does not read, or the cache cannot be written.
    """
    text = json.dumps([FORMAT, identity])
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{folder.name}.lock"):
                if not folder.is_dir():
                    _write(read, folder)
        except OSError as error:
            raise UserError(
                f"cache {cache}: cannot be written ({error.strerror or error}); another folder is "
                "given with --data-cache"
            ) from error
    return open_dataset(folder)


def _write(read: Callable[[Builder], TrajectoryDataset], folder: Path) -> None:
    """Write an entry aside, and put it in place."""
    for left in folder.parent.glob(f".{folder.name}.*.tmp"):
        shutil.rmtree(left)  # of a process that was killed: we hold the lock
    aside = folder.with_name(f".{folder.name}.{os.getpid()}.tmp")
    aside.mkdir()
    try:
        read(lambda episodes, **about: write_dataset(aside, episodes, **about))
        os.rename(aside, folder)
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    sync_folder(folder.parent)


def write_dataset(
    folder: Path,
    episodes: Iterable[Trajectory],
    *,
    name: str,
    observation_space: spaces.Space[Any],
    action_space: spaces.Space[Any],
    env_spec: EnvSpec | None = None,
    reference_scores: tuple[float, float] | None = None,
    source: str | None = None,
) -> TrajectoryDataset:
    """Write episodes, each as it comes, into a folder that is there; gives the dataset.

    Args and errors are those of `TrajectoryDataset.from_episodes`, with the folder before them.
    """
    ends: list[tuple[int, bool, bool]] = []
    record: np.dtype[Any] | None = None
    with open(folder / STEPS_FILE, "wb") as steps, open(folder / REWARDS_FILE, "wb") as rewards:
        for episode in checked_episodes(episodes, source or name, observation_space, action_space):
            record = _record(episode) if record is None else record
            steps.write(_rows(episode, record).tobytes())
            rewards.write(episode.rewards.tobytes())
            ends.append((len(episode.rewards), episode.terminated, episode.truncated))
        for file in (steps, rewards):
            file.flush()
            os.fsync(file.fileno())
    lengths, terminated, truncated = (np.array(column) for column in zip(*ends, strict=True))
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    for field, values in zip(EPISODE_ARRAYS, (offsets, terminated, truncated), strict=True):
        np.save(folder / f"{field}.npy", values)
    assert record is not None
    card = {
        "name": name,
        "observation_space": serialize_space(observation_space),
        "action_space": serialize_space(action_space),
        "env_spec": None if env_spec is None else env_spec.to_json(),
        "reference_scores": reference_scores and list(reference_scores),
        "observation_size": record["observations"].shape[0],
        "action_size": record["actions"].shape[0] if record["actions"].shape else None,
    }
    write_json(folder / CARD_FILE, card)
    return open_dataset(folder)


def _dtype(observation_size: int, action_size: int | None) -> np.dtype[Any]:
    """One step's record; all its parts have 4 bytes, so that none lies across a word."""
    return np.dtype(
        [
            ("observations", np.float32, (observation_size,)),
            ("actions", np.int32) if action_size is None else ("actions", np.float32, action_size),
            ("returns_to_go", np.float32),
            ("timesteps", np.int32),
        ]
    )


def _record(episode: Trajectory) -> np.dtype[Any]:
    size = None if episode.actions.ndim == 1 else episode.actions.shape[1]
    return _dtype(episode.observations.shape[1], size)


def _rows(episode: Trajectory, record: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """The records of an episode."""
    length = len(episode.rewards)
    rows = np.empty(length, record)
    rows["observations"] = episode.observations
    rows["actions"] = episode.actions
    rows["returns_to_go"] = returns_to_go(episode.rewards, np.array([0, length]))
    rows["timesteps"] = np.arange(length)
    return rows


def _words(record: np.dtype[Any], field: str) -> slice:
    """Where a field is in a record, in words."""
    assert record.fields is not None
    part, offset = record.fields[field][:2]
    return slice(offset // WORD, (offset + part.itemsize) // WORD)


def _kinds(record: np.dtype[Any]) -> dict[str, tuple[np.dtype[Any], Any]]:
    """By field: its dtype in the file, and that of a dataset."""
    assert record.fields is not None
    stored = {field: part[0] for field, part in record.fields.items()}
    return {
        field: (part, np.int64 if part.base == np.int32 else np.float32)
        for field, part in stored.items()
    }


def open_dataset(folder: Path) -> TrajectoryDataset:
    """A dataset that `write_dataset` has written; its steps stay on the disk.

    Raises:
        UserError: the folder's files are broken.
    """
    card = read_json(folder / CARD_FILE)
    try:
        arrays = {field: np.load(folder / f"{field}.npy") for field in EPISODE_ARRAYS}
        record = _dtype(card["observation_size"], card["action_size"])
        steps = RowFile(folder / STEPS_FILE, record.itemsize // WORD)
        rewards = RowFile(folder / REWARDS_FILE, 2)
        if not len(steps.words) == len(rewards.words) == arrays["offsets"][-1]:
            raise ValueError("files of different lengths")
    except (OSError, ValueError, KeyError) as error:
        raise UserError(f"{folder}: broken ({error}); remove it to have it made anew") from error
    rows = RowMap(np.zeros(1, np.int64), np.array([len(steps.words)]))
    fields: dict[str, Any] = {
        field: DiskRows(steps, rows, _words(record, field), stored.base, dtype, not stored.shape)
        for field, (stored, dtype) in _kinds(record).items()
    }
    fields["rewards"] = DiskRows(rewards, rows, slice(0, 2), np.float64, np.float64, True)
    scores = card["reference_scores"]
    return TrajectoryDataset(
        name=card["name"],
        observation_space=deserialize_space(card["observation_space"]),
        action_space=deserialize_space(card["action_space"]),
        env_spec=None if card["env_spec"] is None else EnvSpec.from_json(card["env_spec"]),
        reference_scores=None if scores is None else (scores[0], scores[1]),
        **arrays,
        **fields,
    )

"""Datasets that memory does not hold: written to the cache once, then memory-mapped.

A folder holds `steps.bin` with one record a step, the arrays with a value an episode as `.npy`
files, and `card.json`.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from gymnasium.envs.registration import EnvSpec
from minari.serialization import deserialize_space, serialize_space
from numpy.typing import NDArray

from aaren_rl.data.checking import Block, Checker, shifted
from aaren_rl.data.episode import Recording, warn_once, warnings_kept
from aaren_rl.data.rows import MappedFile, Rows, side_by_side
from aaren_rl.data.statistics import returns_to_go, timesteps
from aaren_rl.data.trajectory import STEP_FIELDS, TrajectoryDataset
from aaren_rl.environment import Known
from aaren_rl.errors import UserError
from aaren_rl.files import flush_to_disk, read_json, write_json

FORMAT = 3
STEPS_FILE, CARD_FILE = "steps.bin", "card.json"
EPISODE_ARRAYS = ("offsets", "terminated", "truncated")


def default_cache() -> Path:
    """`AAREN_RL_CACHE`, else the folder `aaren-rl` in the user's cache, `~/.cache` or elsewhere."""
    own = os.environ.get("AAREN_RL_CACHE")
    user = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(own or Path(user) / "aaren-rl").expanduser()


def cached(
    recording: Recording, known: Known | None, settings: list[Any], cache: Path
) -> TrajectoryDataset:
    """The dataset from the cache, after it was written there if need be.

    Processes that want the same dataset wait for the first one. `settings`, JSON values, is what
    else changes the dataset.

    Raises:
        UserError: the recording does not read, or the cache cannot be written.
    """
    if not recording.files:
        raise UserError(
            f"{recording.where}: {recording.kind} does not say which files it is made of, so that "
            "a copy on the disk could not be told from an older one; read it into memory"
        )
    files = [(str(file.resolve()), file.stat()) for file in recording.files]
    stats = [[name, stat.st_size, stat.st_mtime_ns] for name, stat in files]
    declared = [] if known is None else [*map(serialize_space, known[:2]), _spec_json(known.spec)]
    text = json.dumps(
        [FORMAT, recording.name, recording.reference_scores, stats, declared, settings]
    )
    folder = cache / hashlib.sha256(text.encode()).hexdigest()[:32]
    if not folder.is_dir():
        try:
            cache.mkdir(parents=True, exist_ok=True)
            with FileLock(cache / f"{folder.name}.lock"):
                if not folder.is_dir():
                    for left in cache.glob(f".{folder.name}.*.tmp"):
                        shutil.rmtree(left)  # of a process that was killed: we hold the lock
                    aside = cache / f".{folder.name}.{os.getpid()}.tmp"
                    aside.mkdir()
                    try:
                        write_dataset(aside, recording, known)
                        os.rename(aside, folder)
                    finally:
                        shutil.rmtree(aside, ignore_errors=True)
                    flush_to_disk(cache)
        except OSError as error:
            raise UserError(
                f"cache {cache}: cannot be written ({error.strerror or error}); another folder is "
                "given with --data-cache"
            ) from error
    return open_dataset(folder)


def write_dataset(folder: Path, recording: Recording, known: Known | None = None) -> None:
    """Write a recording, block by block, into a folder; errors as `from_episodes`."""
    with warnings_kept() as warnings:
        card = _write_arrays(folder, recording, known)
    write_json(folder / CARD_FILE, {**card, "warnings": list(dict.fromkeys(warnings))})


def _write_arrays(folder: Path, recording: Recording, known: Known | None) -> dict[str, Any]:
    """Write all but the card, which is returned."""
    checker = Checker(recording, known)
    ends = _write_steps(folder, checker.blocks(recording.episodes()), None)
    observation_space, action_space = checker.spaces()
    offset = checker.observation_offset()
    if offset is not None:  # known only after all steps: write them again
        again = Checker(recording, known)
        ends = _write_steps(folder, again.blocks(recording.episodes()), offset)
    lengths = np.concatenate([block.lengths for block in ends])
    np.save(folder / "offsets.npy", np.concatenate([[0], np.cumsum(lengths)]))
    for field in ("terminated", "truncated"):
        np.save(folder / f"{field}.npy", np.concatenate([getattr(block, field) for block in ends]))
    spec = recording.env_spec or (known.spec if known else None)
    return {
        "name": recording.name,
        "observation_space": serialize_space(observation_space),
        "action_space": serialize_space(action_space),
        "env_spec": _spec_json(spec),
        "reference_scores": recording.reference_scores and list(recording.reference_scores),
        "observation_offset": None if offset is None else offset.tolist(),
        "observation_runs": _runs(shifted(ends[0], offset)),
        "action_size": None if ends[0].actions.ndim == 1 else ends[0].actions.shape[1],
    }


def _write_steps(
    folder: Path, blocks: Iterable[Block], offset: NDArray[np.float64] | None
) -> list[Block]:
    """Write the records of all steps; gives the blocks without their steps."""
    ends = []
    with open(folder / STEPS_FILE, "wb") as file:
        for block in blocks:
            runs = shifted(block, offset)
            size = None if block.actions.ndim == 1 else block.actions.shape[1]
            rows = np.empty(len(block.rewards), _record(_runs(runs), size))
            offsets = np.concatenate([[0], np.cumsum(block.lengths)])
            for name, run in zip(rows.dtype["observations"].names, runs, strict=True):
                rows["observations"][name] = run
            rows["actions"] = block.actions
            rows["rewards"] = block.rewards
            rows["returns_to_go"] = returns_to_go(block.rewards, offsets)
            rows["timesteps"] = timesteps(block.lengths)
            file.write(rows.view(np.uint8).data)
            empty = [run[:0].copy() for run in block.observations]
            steps = {"actions": block.actions[:0].copy(), "rewards": block.rewards[:0].copy()}
            ends.append(block._replace(observations=empty, **steps))
        file.flush()
        os.fsync(file.fileno())
    return ends


def _spec_json(spec: EnvSpec | None) -> str | None:
    """A spec as JSON; None where its entry point or its options have no such form."""
    try:
        return None if spec is None else spec.to_json()
    except (TypeError, ValueError):
        return None


def _runs(runs: list[NDArray[Any]]) -> list[tuple[str, int]]:
    """Dtype and number of columns of each."""
    return [(run.dtype.name, run.shape[1]) for run in runs]


def _record(runs: list[tuple[str, int]], action_size: int | None) -> np.dtype[Any]:
    """One step, as it lies in the file; the types are those of a dataset in memory."""
    observations = [(f"run_{i}", dtype, (size,)) for i, (dtype, size) in enumerate(runs)]
    return np.dtype(
        [
            ("rewards", np.float64),
            ("timesteps", np.int64),
            ("actions", np.int64)
            if action_size is None
            else ("actions", np.float32, (action_size,)),
            ("observations", observations),
            ("returns_to_go", np.float32),
        ]
    )


def open_dataset(folder: Path) -> TrajectoryDataset:
    """A dataset that `write_dataset` has written; its steps stay on the disk.

    What was warned of when it was written is said again.
    """
    card = read_json(folder / CARD_FILE)
    try:
        for message in card.get("warnings", ()):
            warn_once(str(message))
        arrays = {field: np.load(folder / f"{field}.npy") for field in EPISODE_ARRAYS}
        record = _record(card["observation_runs"], card["action_size"])
        file = MappedFile(folder / STEPS_FILE)
        steps = file.array(record)
        if len(steps) != arrays["offsets"][-1]:
            raise ValueError("files of different lengths")
        all_rows = np.zeros(1, np.int64), np.array([len(steps)]), file
        fields: dict[str, Any] = {
            name: Rows(steps[name], *all_rows) for name in STEP_FIELDS if name != "observations"
        }
        observations = steps["observations"]
        fields["observations"] = side_by_side(
            [Rows(observations[name], *all_rows) for name in observations.dtype.names or ()]
        )
        scores, offset = card["reference_scores"], card["observation_offset"]
        return TrajectoryDataset(
            name=card["name"],
            observation_space=deserialize_space(card["observation_space"]),
            action_space=deserialize_space(card["action_space"]),
            env_spec=None if card["env_spec"] is None else EnvSpec.from_json(card["env_spec"]),
            reference_scores=None if scores is None else (scores[0], scores[1]),
            observation_offset=None if offset is None else np.array(offset),
            **arrays,
            **fields,
        )
    except (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise UserError(f"{folder}: broken ({error}); remove it to have it made anew") from error

"""LeRobot's datasets: Parquet files of steps, with many episodes each or one (versions 3 and 2).

The layout: https://huggingface.co/docs/lerobot/lerobot-dataset-v3. A folder holds
`meta/info.json` and `data/chunk-000/*.parquet`, with a row for each step and a column for each
feature. Pictures and videos are not read.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from aaren_rl.data.episode import Recording, Trajectory, warn_once
from aaren_rl.data.spaces import flags, named, one_a_step, read_as
from aaren_rl.errors import UserError, one_line
from aaren_rl.files import check_permission, read_bytes

KIND = "a LeRobot dataset"
INFO = Path("meta", "info.json")
STATES = ("observation.state", "observation.environment_state")
"""The columns of numbers that LeRobot's policies read; joined where both exist."""
PLACES = ("episode_index", "frame_index")
REWARD, DONE = "next.reward", "next.done"


def lerobot_source(name: str) -> Recording | None:
    """A folder with `meta/info.json`, as LeRobot writes it.

    Observations are `observation.state`, followed by `observation.environment_state` if it exists.
    An episode is terminated where its last `next.done` is set, else truncated.
    """
    folder = Path(name).expanduser()
    if not (folder / INFO).is_file():
        return None
    content = read_bytes(folder / INFO)
    try:
        info = json.loads(content)
        features, frames = dict(info["features"]), int(info["total_frames"])
    except (OSError, ValueError, TypeError, KeyError, RecursionError, OverflowError) as error:
        raise UserError(
            f"{folder / INFO}: does not read as LeRobot's: features and total_frames expected: "
            f"{type(error).__name__}: {one_line(error)}"
        ) from error
    found = folder.glob("data/*/*.parquet")
    files = sorted(path for path in found if not path.name.startswith("."))  # macOS adds such
    if not files:
        raise UserError(f"{folder}: no data/chunk-000/*.parquet, which LeRobot's v2 and v3 have")
    states = [state for state in STATES if state in features]
    missing = {STATES[0], "action", *PLACES} - features.keys()
    if missing:
        with read_as(str(folder), KIND):
            raise UserError(f"{folder / INFO}: features: {min(missing)!r} missing")
    left_out = [each for each in features if each.startswith("observation.") and each not in states]
    if left_out:
        warn_once(f"{folder}: left out, since they are not states: {', '.join(left_out)}")
    if REWARD not in features:
        warn_once(f"{folder}: no {REWARD}: all rewards are taken as 0, which only cloning can use")
    columns = [*states, "action", *PLACES, *(each for each in (REWARD, DONE) if each in features)]

    def episodes() -> Iterator[Trajectory]:
        rows = 0
        for path in files:
            for episode in _episodes(path, columns):
                rows += len(episode["action"])
                yield _trajectory(path, episode, states)
        if rows != frames:
            raise UserError(f"{folder}: {rows} rows in data, total_frames in {INFO}: {frames}")

    return Recording(folder.resolve().name, episodes, KIND, str(folder), files=[*files])


def _trajectory(path: Path, episode: dict[str, NDArray[Any]], states: list[str]) -> Trajectory:
    steps = len(episode["action"])
    with named(f"{path}: {DONE}"):
        marks = flags(one_a_step(episode.get(DONE, np.zeros(steps, bool))))
    if marks[:-1].any():
        warn_once(
            f"{path.parents[2]}: {DONE} before the last step of an episode, which is taken whole"
        )
    terminated = bool(marks[-1])
    return Trajectory(
        observations=np.concatenate([episode[state].reshape(steps, -1) for state in states], 1),
        actions=episode["action"],
        rewards=episode.get(REWARD, np.zeros(steps, np.float32)).reshape(-1),
        terminated=terminated,
        truncated=not terminated,
    )


def _episodes(path: Path, columns: list[str]) -> Iterator[dict[str, NDArray[Any]]]:
    """The columns of each episode of a file; no episode continues in the next file."""
    rows = _read(path, columns)
    indices, frames = (rows[each].reshape(-1) for each in PLACES)
    cuts = np.flatnonzero(np.diff(indices)) + 1
    for low, high in pairwise([0, *cuts, len(indices)]):
        if not np.array_equal(frames[low:high], np.arange(high - low)):
            where = f"{path}: episode {indices[low]}"
            raise UserError(f"{where}: frame_index does not count 0, 1, 2, ...: rows are missing")
        yield {name: values[low:high] for name, values in rows.items()}


def _read(path: Path, columns: list[str]) -> dict[str, NDArray[Any]]:
    """Columns of a file as arrays `[rows, ...]`."""
    try:
        from pyarrow import parquet
    except ImportError as error:
        raise UserError(f"{path}: needs pyarrow: pip install 'aaren-rl[lerobot]'") from error
    check_permission(path)
    try:
        with parquet.ParquetFile(path) as file:
            missing = set(columns) - set(file.schema_arrow.names)
            table = None if missing else file.read(columns).combine_chunks()
    except Exception as error:  # pyarrow raises many kinds, by what is broken
        raise UserError(f"{path}: does not read as Parquet: {one_line(error)}") from error
    if table is None:
        raise UserError(f"{path}: column {min(missing)!r} missing")
    if not len(table):
        raise UserError(f"{path}: no rows")
    return {each: _array(f"{path}: {each}", table.column(each).chunk(0)) for each in columns}


def _array(where: str, values: Any) -> NDArray[Any]:
    """An Arrow array of numbers, or of lists of equally many numbers, `[rows, ...]`."""
    shape = [len(values)]
    while not values.null_count and hasattr(values, "value_lengths"):
        lengths = np.unique(values.value_lengths().to_numpy(zero_copy_only=False))
        if len(lengths) != 1:
            raise UserError(f"{where}: rows of different lengths")
        shape.append(int(lengths[0]))
        values = values.flatten()
    if values.null_count:
        raise UserError(f"{where}: a row without a value")
    array = values.to_numpy(zero_copy_only=False)
    if array.dtype.kind not in "biuf":
        raise UserError(f"{where}: values of type {values.type}: numbers expected")
    return array.reshape(shape)

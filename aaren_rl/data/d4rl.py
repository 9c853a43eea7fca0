"""D4RL's HDF5 files: all steps of all episodes in flat arrays."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray

from aaren_rl.data.reference_scores import reference_scores
from aaren_rl.data.trajectory import Trajectory, TrajectoryDataset
from aaren_rl.errors import UserError

FIELDS = ("observations", "actions", "rewards", "terminals", "timeouts")


def read_d4rl(
    path: Path, *, name: str | None = None, scores: tuple[float, float] | None = None
) -> TrajectoryDataset:
    """Read a file in D4RL's layout.

    Episodes end where `terminals` or `timeouts` is set; steps after the last such end are kept as
    a truncated episode.

    Args:
        path: the file.
        name: the dataset's name; the file's if left out.
        scores: reference (minimum, maximum) returns; D4RL's by the name if left out.

    Raises:
        UserError: not a whole HDF5 file, a missing array, arrays of different lengths, no steps,
            NaN or infinity.
    """
    name = name or path.stem
    arrays = _read_arrays(path)
    return TrajectoryDataset.from_episodes(
        _episodes(arrays),
        name=name,
        observation_space=spaces.Box(-np.inf, np.inf, arrays["observations"].shape[1:], np.float32),
        action_space=_action_space(arrays["actions"]),
        reference_scores=scores or reference_scores(name),
        source=str(path),
    )


def _read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays that make episodes, each with the same number of rows."""
    try:
        with h5py.File(path, "r") as file:
            for field in FIELDS:
                if not isinstance(file.get(field), h5py.Dataset):
                    raise UserError(
                        f"{path}: array {field!r} missing; a D4RL file has {', '.join(FIELDS)}"
                    )
            arrays = {field: file[field][()] for field in FIELDS}
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except OSError as error:
        reason = " ".join(str(error).split())
        raise UserError(f"{path}: not a whole HDF5 file: {reason}") from error
    steps = len(arrays["actions"])
    for field in FIELDS:
        if len(arrays[field]) != steps:
            raise UserError(
                f"{path}: {len(arrays[field])} rows of {field} for {steps} actions; "
                "equal numbers expected"
            )
    return arrays


def _episodes(arrays: dict[str, NDArray[Any]]) -> Iterator[Trajectory]:
    """Cut the arrays after each terminal or timeout."""
    terminals = arrays["terminals"].reshape(-1).astype(bool)
    timeouts = arrays["timeouts"].reshape(-1).astype(bool)
    stops = np.flatnonzero(terminals | timeouts) + 1
    if len(terminals) and (len(stops) == 0 or stops[-1] < len(terminals)):
        stops = np.append(stops, len(terminals))
    start = 0
    for stop in stops.tolist():
        terminated = bool(terminals[stop - 1])
        yield Trajectory(
            observations=arrays["observations"][start:stop],
            actions=arrays["actions"][start:stop],
            rewards=arrays["rewards"][start:stop],
            terminated=terminated,
            truncated=bool(timeouts[stop - 1]) or not terminated,
        )
        start = stop


def _action_space(actions: NDArray[Any]) -> spaces.Space[Any]:
    """Discrete for one integer a step, else a Box from -1 to 1, as D4RL's robots have."""
    if np.issubdtype(actions.dtype, np.integer) and actions.size == len(actions):
        return spaces.Discrete(int(actions.max(initial=0)) + 1)
    return spaces.Box(-1.0, 1.0, actions.shape[1:], np.float32)

"""What a `--dataset` can be, decided in one place."""

from __future__ import annotations

import os
from pathlib import Path

from aaren_rl.data.d4rl import read_d4rl
from aaren_rl.data.minari import HDF5_FILE, is_minari_folder, read_minari
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError

SHIPPED_ROOT = Path(__file__).parent / "datasets"


def load_trajectories(source: str | Path) -> TrajectoryDataset:
    """Read a dataset from wherever it is.

    Args:
        source: a D4RL file, a Minari folder, or the id of a Minari dataset.

    Raises:
        UserError: there is no such dataset, or it does not read.
    """
    path = Path(source).expanduser()
    if path.is_file():
        return read_minari(path.parent) if path.name == HDF5_FILE else read_d4rl(path)
    if path.is_dir() and is_minari_folder(path):
        return read_minari(path)
    for root in (SHIPPED_ROOT, minari_root()):
        if is_minari_folder(root / str(source)):
            return read_minari(root / str(source))
    raise UserError(f"dataset {str(source)!r}: not found in {minari_root()}")


def minari_root() -> Path:
    """The folder of the local Minari datasets."""
    default = Path.home() / ".minari" / "datasets"
    return Path(os.environ.get("MINARI_DATASETS_PATH") or default)

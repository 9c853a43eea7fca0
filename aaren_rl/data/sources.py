"""What a dataset's name can mean, decided in one place."""

from __future__ import annotations

from pathlib import Path

from aaren_rl.data.d4rl import is_d4rl_name, load_d4rl, read_d4rl
from aaren_rl.data.mask_velocity import PREFIX, mask_velocity
from aaren_rl.data.minari import (
    HDF5_FILE,
    download_minari,
    is_minari_folder,
    is_minari_id,
    local_ids,
    local_root,
    read_minari,
)
from aaren_rl.data.trajectory import TrajectoryDataset
from aaren_rl.errors import UserError

SHIPPED_ROOT = Path(__file__).parent / "datasets"  # laid out as a Minari root


def load_trajectories(source: str | Path) -> TrajectoryDataset:
    """Read a dataset from wherever it is.

    `source` is taken for, in this order,

    1. the path of an HDF5 file in D4RL's layout, or of a Minari dataset's folder;
    2. the id of a dataset inside this package, `aaren-rl/hopper-small-v0`;
    3. the id of a Minari dataset on this machine, in `MINARI_DATASETS_PATH` or its default;
    4. the name of a D4RL dataset, `hopper-medium-v2`, in D4RL's cache or else downloaded;
    5. the id of a Minari dataset to download.

    `mask-velocity:` in front of any of these takes the velocities out of a robot's observations:
    see `aaren_rl.data.mask_velocity`.

    Raises:
        UserError: there is no such dataset, or it does not read; one line that says why.
    """
    name = str(source)
    if name.startswith(PREFIX):
        return mask_velocity(load_trajectories(name.removeprefix(PREFIX)))
    path = Path(source).expanduser()
    if path.is_file():
        return read_minari(path.parent) if path.name == HDF5_FILE else read_d4rl(path)
    if path.is_dir() and is_minari_folder(path):
        return read_minari(path)
    if not is_minari_id(name):
        expected = "a D4RL file, a Minari folder, a Minari id or a D4RL name"
        raise UserError(f"dataset {name!r}: {_what_is_there(path)}; {expected} expected")
    for root in (SHIPPED_ROOT, local_root()):
        if is_minari_folder(root / name):
            return read_minari(root / name)
    if is_d4rl_name(name):
        return load_d4rl(name)
    return read_minari(download_minari(name, known=local_ids(SHIPPED_ROOT)))


def _what_is_there(path: Path) -> str:
    """Why a path is no dataset."""
    return "a folder without data/metadata.json" if path.is_dir() else "no such file or folder"

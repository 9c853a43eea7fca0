"""Flags of a tiny run, and datasets in every state of disrepair, made of the shipped one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from aaren_rl.data import load_trajectories
from aaren_rl.data.sources.load import SHIPPED_ROOT

SHIPPED = "aaren-rl/hopper-small-v0"
TINY = (
    *("--updates", "30", "--batch-size", "8", "--context-length", "5", "--learning-rate", "1e-3"),
    *("--width", "16", "--layers", "1", "--evaluate-every", "15", "--episodes", "2"),
    *("--log-every", "5", "--device", "cpu", "--held-out", "0", "--precision", "32"),
)


def d4rl_arrays(steps: int = 200) -> dict[str, np.ndarray]:
    """The first steps of the shipped data, as one episode in D4RL's layout."""
    data = load_trajectories(SHIPPED)
    ends = np.zeros(steps, bool)
    ends[-1] = True
    return {
        "observations": data.observations[:steps].copy(),
        "actions": data.actions[:steps].copy(),
        "rewards": data.rewards[:steps].astype(np.float32),
        "terminals": ends,
        "timeouts": np.zeros(steps, bool),
    }


def write(path: Path, arrays: dict[str, Any], **options: Any) -> Path:
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file.create_dataset(name, data=values, **options)
    return path


def broken_datasets(folder: Path) -> dict[str, tuple[Path, str]]:
    """Name: (what to give as --dataset, what the error must say)."""
    arrays = d4rl_arrays()
    whole = write(folder / "hopper_whole-v2.hdf5", arrays, compression="gzip", fletcher32=True)
    content = whole.read_bytes()
    cases: dict[str, tuple[Path, str]] = {}

    def case(name: str, words: str, suffix: str = ".hdf5") -> Path:
        path = folder / f"{name.replace(' ', '_')}{suffix}"
        cases[name] = (path, words)
        return path

    case("truncated", "corrupt or cut short").write_bytes(content[: len(content) // 2])
    case("empty file", "corrupt or cut short").write_bytes(b"")
    case("no HDF5", "corrupt or cut short").write_bytes(b"observations,actions\n" * 50)
    with h5py.File(whole) as file:
        place = file["observations"].id.get_chunk_info(0).byte_offset
    damaged = bytearray(content)
    damaged[place + 100 : place + 200] = bytes(100)
    case("damaged inside", "corrupt or cut short").write_bytes(bytes(damaged))
    write(case("without actions", "'actions' missing"), {**arrays, "actions": 0} | {"x": [1]})
    with h5py.File(folder / "without_actions.hdf5", "a") as file:
        del file["actions"]
    write(case("other layout", "'observations' missing"), {"s": arrays["observations"]})
    with h5py.File(case("minaris layout", "Minari's layout"), "w") as file:
        file.create_group("episode_0")
    for field, place in (("observations", (20, 3)), ("actions", (20, 1)), ("rewards", (20,))):
        values = arrays[field].copy()
        values[place] = np.nan
        path = case(f"NaN in {field}", f"{field}: NaN or infinity at step 20")
        write(path, {**arrays, field: values})
    nothing = {name: values[:0] for name, values in arrays.items()}
    write(case("empty", "no episodes"), nothing)
    short = {**arrays, "rewards": arrays["rewards"][:-5]}
    write(case("lengths differ", "195 rows of rewards for 200 actions"), short)
    case("missing", "no such file or folder")
    case("a folder", "a folder without data/metadata.json or meta/info.json", "").mkdir()
    minari = case("minari without data", "main_data.hdf5: no such file", "")
    shutil.copytree(SHIPPED_ROOT / SHIPPED, minari)
    (minari / "data" / "main_data.hdf5").unlink()
    minari = case("minari with broken metadata", "metadata.json: JSON expected", "")
    (minari / "data").mkdir(parents=True)
    (minari / "data" / "metadata.json").write_text("{")
    minari = case("minari without episodes", "no episodes", "")
    shutil.copytree(SHIPPED_ROOT / SHIPPED, minari)
    metadata = minari / "data" / "metadata.json"
    values = {**json.loads(metadata.read_text()), "total_episodes": 0, "total_steps": 0}
    metadata.write_text(json.dumps(values))
    return cases

"""Refusals of files: the file, the format that it was taken for, and what is wrong with it."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from aaren_rl.data import load_dataset
from aaren_rl.errors import UserError

STEPS = 4
FLAT: dict[str, Any] = {
    "observations": np.zeros((STEPS, 2)),
    "actions": np.zeros((STEPS, 1)),
    "rewards": np.zeros(STEPS),
    "timeouts": np.arange(STEPS) == STEPS - 1,
}
V1 = {"episode_terminals": FLAT["timeouts"]}
V2 = {"columns": ["rewards"], "version": "2.1"}


def hdf5(path: Path, **changes: Any) -> None:
    with h5py.File(path, "w") as file:
        for name, values in {**FLAT, **changes}.items():
            if isinstance(values, dict):
                file.create_group(name)
            else:
                file[name] = values


def npz(path: Path, **changes: Any) -> None:
    np.savez(path, **{**FLAT, **changes})


def flat_json(path: Path, **changes: Any) -> None:
    lists = {name: np.asarray(values).tolist() for name, values in FLAT.items()}
    path.write_text(json.dumps({**lists, **changes}))


Writer = Callable[..., None]
SHORT = "3 rows of rewards for 4 actions; equal numbers expected"
OPENING: dict[str, tuple[str, Writer, dict[str, Any], str, str]] = {
    "D4RL: lengths": ("x.hdf5", hdf5, {"rewards": np.zeros(3)}, SHORT, "a D4RL file"),
    "D4RL: bytes": (
        *("x.hdf5", hdf5, {"rewards": np.array([b"a"] * STEPS)}),
        *("rewards: values of type |S1: numbers expected", "a D4RL file"),
    ),
    "D4RL: ends": (
        *("x.hdf5", hdf5, {"timeouts": np.zeros((STEPS, 2))}),
        *("timeouts of shape [4, 2]; one value a step expected", "a D4RL file"),
    ),
    "D4RL: a group": (
        *("x.hdf5", hdf5, {"actions": {}}),
        *("actions: a group; an array expected", "a D4RL file"),
    ),
    "d3rlpy v1": ("x.h5", hdf5, {**V1, "rewards": np.zeros(3)}, SHORT, "a d3rlpy file (v1)"),
    "d3rlpy v2": (
        *("x.h5", hdf5, {**V2, "num_episodes": np.array([1, 2])}),
        *("num_episodes: one integer expected, got int64 (2,)", "a d3rlpy file (v2)"),
    ),
    "npz": ("x.npz", npz, {"rewards": np.zeros(3)}, SHORT, "a .npz file"),
    "JSON: lengths": ("x.json", flat_json, {"rewards": [0] * 3}, SHORT, "a JSON file of flat"),
    "JSON: ragged": (
        *("x.json", flat_json, {"observations": [[1], [1, 2]]}),
        *("observations: rows of different lengths; equal lengths expected", "a JSON file of flat"),
    ),
}


@pytest.mark.parametrize("case", OPENING)
def test_a_refusal_names_file_and_format_once(case: str, tmp_path: Path) -> None:
    name, write, changes, message, kind = OPENING[case]
    file = tmp_path / name
    write(file, **changes)
    with pytest.raises(UserError) as caught:
        load_dataset(file)
    said = str(caught.value)
    assert said.startswith(f"{file}: {message} (read as {kind}")
    assert said.count("read as") == said.count(str(file)) == 1


def test_a_refusal_that_names_the_format_already_does_so_once(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", actions=FLAT["actions"])
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path / "x.npz")
    assert str(caught.value).count("a .npz file") == 1
    assert "read as" not in str(caught.value)


def test_folders_are_named_with_their_format(tmp_path: Path, small_root: Path) -> None:
    folder = tmp_path / "robot"
    shutil.copytree(small_root / "test" / "hopper-v3", folder)
    metadata = folder / "data" / "metadata.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "ref_min_score": "low", "ref_max_score": 2}))
    with pytest.raises(UserError, match=r"metadata.json: ref_min_score .* \(read as a Minari"):
        load_dataset(folder)
    info = tmp_path / "arm" / "meta" / "info.json"
    (tmp_path / "arm" / "data" / "chunk-000").mkdir(parents=True)
    (tmp_path / "arm" / "data" / "chunk-000" / "file-000.parquet").touch()
    info.parent.mkdir()
    info.write_text(json.dumps({"features": {"action": {}}, "total_frames": 1}))
    with pytest.raises(UserError, match=r"info.json: features: .* \(read as a LeRobot dataset\)"):
        load_dataset(tmp_path / "arm")


@pytest.mark.parametrize("name", ["x.csv", "x.pkl", "x.npy", "x.parquet", "x", "x-v0"])
def test_files_of_an_unknown_format(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"observations,actions\n")
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path / name)
    said = str(caught.value)
    assert str(tmp_path / name) in said
    assert "a file of an unknown format; a D4RL file, a Minari folder" in said
    assert "corrupt" not in said


def test_what_begins_as_hdf5_is_called_cut_short(tmp_path: Path) -> None:
    hdf5(tmp_path / "whole.data")
    content = (tmp_path / "whole.data").read_bytes()
    (tmp_path / "half.data").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"half.data: a whole HDF5 file expected, .* cut short"):
        load_dataset(tmp_path / "half.data")
    assert load_dataset(tmp_path / "whole.data").num_steps == STEPS


RIGHTS = "-dac_override,-dac_read_search"
WITHOUT_RIGHTS = ["setpriv", f"--bounding-set={RIGHTS}", f"--inh-caps={RIGHTS}"]
CHILD = """
import sys
from aaren_rl.data import load_dataset
for name in sys.argv[1:]:
    try:
        load_dataset(name)
    except Exception as error:
        print(f"{type(error).__name__}: {error}")
"""


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="setpriv takes root's rights away")
def test_files_without_permission_are_all_told_alike(tmp_path: Path, small_root: Path) -> None:
    files = [tmp_path / name for name in ("d4rl.hdf5", "v1.h5", "x.npz", "x.json", "x.csv")]
    for file, write in zip(files, (hdf5, hdf5, npz, flat_json, hdf5), strict=True):
        write(file)
    folder = tmp_path / "robot"
    shutil.copytree(small_root / "test" / "hopper-v3", folder)
    files.append(folder / "data" / "main_data.hdf5")
    for file in files:
        file.chmod(0)
    files += [tmp_path / "shut", tmp_path / "shut" / "x.npz"]
    files[-2].mkdir(mode=0)
    words = [*WITHOUT_RIGHTS, sys.executable, "-c", CHILD, str(folder), *map(str, files)]
    ran = subprocess.run(words, capture_output=True, text=True)
    files[-2].chmod(0o700)
    if "setpriv" in ran.stderr:
        pytest.skip(ran.stderr)  # where no rights can be given away
    said = ran.stdout.splitlines()
    refused = [f"UserError: {file}: cannot be read (Permission denied)" for file in files]
    assert said == [f"{refused[-3]} (read as a Minari dataset)", *refused]

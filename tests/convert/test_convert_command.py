"""Memory, kills and mistakes."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
from test_round_trips import d4rl_file

from aaren_rl.cli import main
from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.data import load_trajectories
from aaren_rl.data.sources.load import SHIPPED_ROOT
from aaren_rl.errors import UserError

SHIPPED = str(SHIPPED_ROOT / "aaren-rl/hopper-small-v0")
PEAKS = """
import json, sys
from pathlib import Path
from aaren_rl.convert import ConvertConfig, convert

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

peaks, folder = [], Path(sys.argv[1])
for copies in (1, 20):
    target = convert(ConvertConfig(str(folder / f"x{copies}.hdf5"), f"x{copies}-v0", folder))
    peaks.append(peak())
for copies in (1, 20):
    convert(ConvertConfig(str(folder / f"x{copies}-v0"), str(folder / f"back{copies}.hdf5")))
    peaks.append(peak())
print(json.dumps(peaks))
"""


def repeated(path: Path, copies: int, one_episode: bool = False) -> None:
    """The shipped data again and again, or all of it as one endless episode."""
    data = load_trajectories(SHIPPED)
    ends = np.zeros(data.num_steps, bool)
    if not one_episode:
        ends[data.offsets[1:] - 1] = True
    arrays = {
        "observations": np.tile(data.observations, (1, 4)),
        "actions": data.actions,
        "rewards": data.rewards.astype(np.float32),
        "terminals": ends,
        "timeouts": np.zeros_like(ends),
    }
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            shape = (copies * len(values), *values.shape[1:])
            node = file.create_dataset(name, shape, values.dtype)
            for copy in range(copies):
                node[copy * len(values) : (copy + 1) * len(values)] = values


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
@pytest.mark.parametrize("one_episode", [False, True])
def test_memory_does_not_grow_with_the_file(tmp_path: Path, one_episode: bool) -> None:
    for copies in (1, 20):
        repeated(tmp_path / f"x{copies}.hdf5", copies, one_episode)
    sizes = [(tmp_path / f"x{copies}.hdf5").stat().st_size for copies in (1, 20)]
    assert sizes[1] - sizes[0] > 160 << 20
    process = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    small, large, back, back_large = json.loads(process.stdout)
    assert large - small < 64 << 20  # HDF5 keeps some freed memory, up to a limit
    assert back_large - back < 8 << 20
    with h5py.File(tmp_path / "x20.hdf5") as one, h5py.File(tmp_path / "back20.hdf5") as other:
        for name in one:
            np.testing.assert_array_equal(one[name][()], other[name][()])


@pytest.mark.parametrize("way", ["to minari", "to d4rl"])
def test_killed_at_any_moment_nothing_is_half_there(tmp_path: Path, way: str) -> None:
    repeated(tmp_path / "x3.hdf5", 3)
    source, target = str(tmp_path / "x3.hdf5"), "x3-v0"
    if way == "to d4rl":
        source = str(convert(ConvertConfig(source, target, tmp_path)))
        target = str(tmp_path / "back.hdf5")
    path = tmp_path / target
    moments = random.Random(os.urandom(8))
    for _ in range(4):
        child = os.fork()
        if child == 0:
            root = None if way == "to d4rl" else tmp_path
            convert(ConvertConfig(source, target, root))
            os._exit(0)
        time.sleep(moments.uniform(0.01, 0.3))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            break
    if not path.exists():
        convert(ConvertConfig(source, target, None if way == "to d4rl" else tmp_path))
    np.testing.assert_array_equal(
        load_trajectories(path).observations, load_trajectories(source).observations
    )


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    file = d4rl_file(tmp_path / "hopper_medium-v2.hdf5")
    config = ConvertConfig(str(file), "test/hopper-v0", tmp_path)
    folder = convert(config)
    before = {path: path.stat().st_mtime_ns for path in (file, *folder.rglob("*"))}
    with pytest.raises(UserError, match="test/hopper-v0: there already"):
        convert(config)
    with pytest.raises(UserError, match=r"hopper_medium-v2\.hdf5: there already"):
        convert(ConvertConfig(str(folder), str(file)))
    assert {path: path.stat().st_mtime_ns for path in (file, *folder.rglob("*"))} == before


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "out.hdf5"
    assert main(["convert", "aaren-rl/hopper-small-v0", str(target)]) == 0
    assert capsys.readouterr().out == f"{target}\n"
    wanted = load_trajectories(SHIPPED)
    np.testing.assert_array_equal(load_trajectories(target).rewards, wanted.rewards)
    assert main(["convert", str(target), "new/hopper-v0", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new/hopper-v0'}\n"


MISTAKES = [
    (["aaren-rl/hopper-small-v0", "somewhere"], "target 'somewhere': a Minari id such as"),
    (["aaren-rl/hopper-small-v0", "new/hopper-v0"], "is a Minari dataset already"),
    (["FILE", "new.hdf5"], "is a D4RL file already"),
    (["nothing.hdf5", "new/hopper-v0"], "dataset 'nothing.hdf5': no such file or folder"),
    (["aaren-rl/hopper-small-v0", "new.hdf5", "--environment", "Hopper-v5"], "--environment Ho"),
    (["aaren-rl/hopper-small-v0", "none/new.hdf5"], "none/new.hdf5: cannot be written"),
    (["FILE", "new/hopper-v0", "--root", "FILE"], "cannot be written"),
    (["FILE", "new/hopper-v0", "--environment", "No-v1"], "environment 'No-v1'"),
    (["BROKEN", "new/hopper-v0"], "corrupt or cut short"),
    (["SHORT", "new/hopper-v0"], "rows of rewards for"),
]


@pytest.mark.parametrize(("words", "message"), MISTAKES, ids=[m for _, m in MISTAKES])
def test_mistakes_in_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    d4rl_file(Path("FILE"))
    content = Path("FILE").read_bytes()
    Path("BROKEN").write_bytes(content[: len(content) // 2])
    d4rl_file(Path("SHORT"))
    with h5py.File("SHORT", "r+") as file:
        rewards = file["rewards"][5:]
        del file["rewards"]
        file["rewards"] = rewards
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not [path for path in tmp_path.rglob("*.hdf5") if path.name != "FILE"]


def test_datasets_that_d4rl_cannot_hold(tmp_path: Path) -> None:
    folder = convert(ConvertConfig(str(d4rl_file(tmp_path / "hopper-v2.hdf5")), "a-v0", tmp_path))
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        file["episode_1/truncations"][3] = True
    target = tmp_path / "new.hdf5"
    with pytest.raises(UserError, match="episode 1: truncations before the last step"):
        convert(ConvertConfig(str(folder), str(target)))
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        file["episode_1/truncations"][3] = False
        del file["episode_2/infos/qpos"]
    with pytest.raises(UserError, match=r"episode 2: infos .*those of episode 0"):
        convert(ConvertConfig(str(folder), str(target)))
    with h5py.File(folder / "data/main_data.hdf5", "r+") as file:
        del file["episode_1"]
    with pytest.raises(UserError, match="episode 1: no such group"):
        convert(ConvertConfig(str(folder), str(target)))
    metadata = folder / "data/metadata.json"
    content = json.loads(metadata.read_text())
    metadata.write_text(json.dumps({**content, "data_format": "arrow"}))
    with pytest.raises(UserError, match="format 'arrow'; 'hdf5' expected"):
        convert(ConvertConfig(str(folder), str(target)))
    assert not target.exists()
    assert not list(tmp_path.glob(".*.tmp"))

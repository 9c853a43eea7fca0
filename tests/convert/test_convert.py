"""Any source to Minari: the same numbers, in little memory, whole or not at all."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.cli import main
from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.data import load_dataset
from aaren_rl.data.sources.registry import SOURCES
from aaren_rl.errors import UserError

SHIPPED = "aaren-rl/hopper-small-v0"
PEAKS = """
import json, sys
from pathlib import Path
from aaren_rl.convert import ConvertConfig, convert

def peak():
    lines = Path("/proc/self/status").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("VmHWM")).split()[1]) << 10

peaks, folder = [], Path(sys.argv[1])
for copies in (1, 12):
    convert(ConvertConfig(str(folder / f"x{copies}.hdf5"), f"x{copies}-v0", folder))
    peaks.append(peak())
print(json.dumps(peaks))
"""


def d4rl_file(path: Path, *, copies: int = 1, width: int = 1, **changes: Any) -> Path:
    """Hopper data in D4RL's layout, the last 123 steps unfinished; `changes` replace arrays."""
    data = load_dataset(SHIPPED).subset(range(8))
    ends = np.zeros((2, data.num_steps), bool)
    ends[:, data.offsets[1:] - 1] = data.terminated, data.truncated
    following = np.concatenate([data.observations[1:], data.observations[:1]])
    following[data.offsets[1:] - 1] += 0.25  # what comes after an episode is not the next one's
    arrays: dict[str, Any] = {
        "observations": np.tile(data.observations, (1, width)),
        "actions": data.actions,
        "rewards": data.rewards.astype(np.float32),
        "terminals": ends[0],
        "timeouts": ends[1],
        "next_observations": np.tile(following, (1, width)),
        "infos/qpos": np.zeros((data.num_steps, 6)),
        "metadata/algorithm": np.bytes_("SAC"),
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            if values is None:
                continue
            if name.startswith("metadata"):
                file[name] = values
                continue
            node = file.create_dataset(
                name, (copies * len(values), *values.shape[1:]), values.dtype
            )
            for copy in range(copies):
                node[copy * len(values) : (copy + 1) * len(values)] = values
        if copies == 1:
            for name in ("terminals", "timeouts"):
                file[name][-123:] = False
    return path


def test_images_keep_their_pixels_and_take_their_own_size(tmp_path: Path) -> None:
    frames = np.random.default_rng(0).integers(0, 256, (200, 84, 84, 4), np.uint8)
    ends = np.arange(200) % 100 == 99
    file = tmp_path / "frames.hdf5"
    with h5py.File(file, "w") as target:
        target["observations"], target["actions"] = frames, np.zeros((200, 2), np.float32)
        target["rewards"], target["terminals"] = np.ones(200), ends
    convert(ConvertConfig(str(file), "test/frames-v0", tmp_path))
    folder = tmp_path / "test" / "frames-v0"
    theirs = minari.MinariDataset(folder / "data")
    shown = np.concatenate([episode.observations[:-1] for episode in theirs])
    np.testing.assert_array_equal(shown, frames)
    read = load_dataset(folder, on="disk", cache=tmp_path / "cache")
    assert read.observations.dtype == np.uint8
    np.testing.assert_array_equal(read.observations[:], frames.reshape(200, -1))
    for part in (folder, tmp_path / "cache"):
        size = sum(each.stat().st_size for each in part.rglob("*") if each.is_file())
        assert size < 1.1 * frames.nbytes


def test_d4rl_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The same dataset for us; for Minari also the observation after each last action."""
    file = d4rl_file(tmp_path / "hopper_medium-v2.hdf5")
    folder = convert(ConvertConfig(str(file), "d4rl/hopper/medium-v2", tmp_path))
    assert folder == tmp_path / "d4rl/hopper/medium-v2"
    for keep in (True, False):  # which episode is unfinished is known of both
        one, other = (load_dataset(each, keep_unfinished_episode=keep) for each in (file, folder))
        for field in ("observations", "actions", "rewards", "offsets", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert one.observation_space == other.observation_space
        assert one.action_space == other.action_space
        assert one.reference_scores == other.reference_scores == (-20.272305, 3234.3)
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    with h5py.File(file) as source:
        following = source["next_observations"][()]
        stop = 0
        for episode in minari.load_dataset("d4rl/hopper/medium-v2"):
            stop += len(episode.rewards)
            np.testing.assert_array_equal(episode.observations[-1], following[stop - 1])
    assert stop == len(following)


def test_a_robot_without_velocities(tmp_path: Path) -> None:
    """As `load_dataset` reads it, and with the position after each last action."""
    file = d4rl_file(tmp_path / "hopper_medium-v2.hdf5")
    for source in (str(file), "aaren-rl/hopper-small-v0"):
        name = f"mask-velocity:{source}"
        target = f"masked/{len(source)}-v0"
        folder = convert(ConvertConfig(name, target, tmp_path))
        one, other = load_dataset(name), load_dataset(folder)
        assert other.observations.shape == (one.num_steps, 5)
        for field in ("observations", "actions", "rewards", "offsets", "terminated"):
            np.testing.assert_array_equal(getattr(one, field), getattr(other, field))
        assert one.observation_space == other.observation_space
        assert one.action_space == other.action_space
    assert other.env_spec == one.env_spec
    made = tmp_path / f"masked/{len(str(file))}-v0/data/main_data.hdf5"
    with h5py.File(file) as given, h5py.File(made) as masked:
        steps = len(masked["episode_0/rewards"])
        last = given["next_observations"][steps - 1, :5]
        np.testing.assert_array_equal(masked["episode_0/observations"][steps], last)
    with pytest.raises(UserError, match=r"mask-velocity:pen: data of hopper, .* expected"):
        convert(
            ConvertConfig(f"mask-velocity:{file.rename(tmp_path / 'pen.hdf5')}", "x-v0", tmp_path)
        )


def test_without_following_observations_the_last_is_repeated(tmp_path: Path) -> None:
    file = d4rl_file(tmp_path / "x.hdf5", next_observations=None)
    folder = convert(ConvertConfig(str(file), "x-v0", tmp_path, compression="gzip"))
    with h5py.File(folder / "data/main_data.hdf5") as made:
        for episode in made.values():
            seen = episode["observations"]
            assert seen.compression == "gzip"
            np.testing.assert_array_equal(seen[-1], seen[-2])


def test_the_environments_spaces(tmp_path: Path) -> None:
    """Pendulum's actions go from -2 to 2, whatever the data reach."""
    generator, ends = np.random.default_rng(0), np.arange(40) % 10 == 9
    file = d4rl_file(
        tmp_path / "pendulum.hdf5",
        observations=generator.normal(size=(40, 3)).astype(np.float32),
        actions=generator.uniform(-1.5, 1.5, (40, 1)).astype(np.float32),
        rewards=np.ones(40, np.float32),
        terminals=np.zeros(40, bool),
        timeouts=ends,
        next_observations=None,
    )
    alone = load_dataset(convert(ConvertConfig(str(file), "alone-v0", tmp_path)))
    assert alone.action_space.high == pytest.approx(np.abs(alone.actions).max())
    folder = convert(ConvertConfig(str(file), "told-v0", tmp_path, environment="Pendulum-v1"))
    told = load_dataset(folder)
    assert told.action_space == spaces.Box(-2, 2, (1,), np.float32)
    assert told.env_spec is not None
    assert told.env_spec.id == "Pendulum-v1"


def test_other_sources(tmp_path: Path) -> None:
    """Minari's own layouts, with dictionaries, and files of one's own."""
    own = {
        "observations": {"a": [[1.0], [2.0], [3.0]], "b": [[0, 1], [1, 0], [2, 2]]},
        "actions": [1, 0],
        "rewards": [0.5, 1],
        "terminated": True,
    }
    (tmp_path / "own.json").write_text(json.dumps([own, own]))
    folder = convert(ConvertConfig(str(tmp_path / "own.json"), "own-v0", tmp_path))
    again = convert(ConvertConfig(str(folder), "again-v0", tmp_path))
    for each in (folder, again):
        data = load_dataset(each)
        assert data.observations.tolist() == 2 * [[1, 0, 1], [2, 1, 0]]
        assert data.actions.tolist() == [1, 0, 1, 0]
        assert data.action_space == spaces.Discrete(2)


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads memory from /proc")
def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    sizes = [
        d4rl_file(tmp_path / f"x{copies}.hdf5", copies=copies, width=20).stat().st_size
        for copies in (1, 12)
    ]
    assert sizes[1] - sizes[0] > 80 << 20
    process = subprocess.run(
        [sys.executable, "-c", PEAKS, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=300,
        check=True,
    )
    small, large = json.loads(process.stdout)
    assert large - small < 24 << 20


def test_killed_at_any_moment_nothing_is_half_there(tmp_path: Path) -> None:
    source = str(d4rl_file(tmp_path / "x2.hdf5", copies=2))
    path = tmp_path / "x2-v0"
    moments = random.Random(os.urandom(8))
    for _ in range(4):
        child = os.fork()
        if child == 0:
            convert(ConvertConfig(source, path.name, tmp_path))
            os._exit(0)
        time.sleep(moments.uniform(0.01, 0.2))
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        if path.exists():
            break
    if not path.exists():
        convert(ConvertConfig(source, path.name, tmp_path))
    np.testing.assert_array_equal(
        load_dataset(path).observations, load_dataset(source).observations
    )


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = d4rl_file(tmp_path / "hopper_medium-v2.hdf5")
    assert main(["convert", str(file), "new/hopper-v0", "--root", str(tmp_path)]) == 0
    assert capsys.readouterr().out == f"{tmp_path / 'new/hopper-v0'}\n"
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert main(["convert", str(file), "new/hopper-v0", "--root", str(tmp_path)]) == 2
    assert "new/hopper-v0: there already" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


MISTAKES = [
    (["aaren-rl/hopper-small-v0", "somewhere"], "target 'somewhere': a Minari id such as"),
    (["aaren-rl/hopper-small-v0", "new.hdf5"], "target 'new.hdf5': D4RL files are read but no lon"),
    (["nothing.hdf5", "new/hopper-v0"], "dataset 'nothing.hdf5': no such file or folder"),
    (["FILE", "new/hopper-v0", "--root", "FILE"], "cannot be written"),
    (["FILE", "new/hopper-v0", "--environment", "No-v1"], "environment 'No-v1'"),
    (["FILE", "new/hopper-v0", "--environment", "CartPole-v1"], "(read as a D4RL file)"),
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
    d4rl_file(Path("SHORT"), rewards=np.zeros(5, np.float32))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    assert main(["convert", *words]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert message in error
    assert not list(tmp_path.rglob("*.hdf5"))


def test_a_target_that_is_there_is_refused_before_the_source_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    (tmp_path / "there-v0").mkdir()
    (tmp_path / "broken.hdf5").write_bytes(b"no data")
    with pytest.raises(UserError, match="there already"):
        convert(ConvertConfig(str(tmp_path / "broken.hdf5"), "there-v0"))


def test_a_source_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tests_ones.py").write_text(
        "import numpy as np\nimport aaren_rl as arl\n"
        "columns = np.ones((4, 2)), np.ones((4, 1)), np.ones(4), np.arange(4) % 2\n"
        "made = arl.TrajectoryDataset.from_arrays(*columns)\n"
        "arl.register_source('ones', lambda name: made if name == 'ones:' else None)\n"
    )
    how: dict[str, Any] = {"root": Path("minari"), "plugin": ("tests_ones",)}
    assert convert(ConvertConfig("ones:", "own/first-v0", **how)).is_dir()
    words = ["convert", "ones:", "own/ones-v0", "--root", "minari", "--plugin", "tests_ones"]
    assert main(words) == 0
    assert load_dataset("minari/own/ones-v0").lengths.tolist() == [2, 2]

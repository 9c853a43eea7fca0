"""Datasets on the disk: the same steps, batches and training as in memory, in less of it."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import h5py
import numpy as np
import pytest
import torch

from aaren_rl.data import (
    EpisodeSampler,
    StreamSampler,
    TrajectoryDataset,
    WindowSampler,
    load_trajectories,
)
from aaren_rl.data.disk import default_cache
from aaren_rl.data.rows import MappedFile, Rows
from aaren_rl.data.sources.load import SHIPPED_ROOT
from aaren_rl.data.to_minari import write_minari
from aaren_rl.data.trajectory import STEP_FIELDS
from aaren_rl.envs.memory.experts import record_expert
from aaren_rl.errors import UserError
from aaren_rl.training import train

SHIPPED_ID = "aaren-rl/hopper-small-v0"


@pytest.fixture(scope="session")
def discrete(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A dataset with Discrete actions and an environment with options."""
    record = record_expert("aaren/PassiveTMaze-v0?length=[3,9]", 40)
    return str(
        write_minari(
            "test/maze-v0",
            record.episodes(),
            observation_space=record.observation_space,
            action_space=record.action_space,
            env_spec=record.env_spec,
            root=tmp_path_factory.mktemp("maze"),
        )
    )


@pytest.fixture(params=["hopper", "maze", "d4rl"])
def source(request: pytest.FixtureRequest, discrete: str, d4rl_file: Any) -> str:
    return {"hopper": SHIPPED_ID, "maze": discrete, "d4rl": str(d4rl_file.path)}[request.param]


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def both(source: str, cache: Path) -> tuple[TrajectoryDataset, TrajectoryDataset]:
    """In memory and on the disk."""
    return load_trajectories(source), load_trajectories(source, on="disk", cache=cache)


def assert_same(memory: TrajectoryDataset, disk: TrajectoryDataset) -> None:
    for field in (*STEP_FIELDS, "offsets", "terminated", "truncated"):
        ours, theirs = getattr(disk, field), getattr(memory, field)
        assert (ours.dtype, ours.shape, len(ours)) == (theirs.dtype, theirs.shape, len(theirs))
        np.testing.assert_array_equal(np.asarray(ours), theirs, err_msg=field)
    np.testing.assert_array_equal(disk.episode_returns, memory.episode_returns)
    for one, other in zip(
        disk.observation_statistics(), memory.observation_statistics(), strict=True
    ):
        np.testing.assert_array_equal(one, other)
    for field in ("name", "observation_space", "action_space", "env_spec", "reference_scores"):
        assert getattr(disk, field) == getattr(memory, field), field


Both = tuple[TrajectoryDataset, TrajectoryDataset]


def test_the_same_steps(both: Both) -> None:
    assert_same(*both)


def test_the_same_choices(both: Both) -> None:
    chosen = np.random.default_rng(0).permutation(both[0].num_episodes)[:5]
    assert_same(*(data.subset(chosen) for data in both))
    assert_same(*(data.top_percent(40.0).subset([1, 0]) for data in both))
    for index in (0, -1):
        one, other = (data.subset(chosen).episode(index) for data in both)
        np.testing.assert_array_equal(one.observations, other.observations)
        np.testing.assert_array_equal(one.actions, other.actions)


@pytest.mark.parametrize("sampling", ["windows", "episodes", "streams"])
def test_the_same_batches(both: Both, sampling: str) -> None:
    makers: dict[str, Any] = {
        "windows": lambda data: WindowSampler(data, batch_size=16, context_length=7, seed=1),
        "streams": lambda data: StreamSampler(data, batch_size=3, context_length=7, seed=1),
        "episodes": lambda data: EpisodeSampler(data, batch_steps=900, seed=1),
    }
    chosen = np.arange(both[0].num_episodes)[::2]
    one, other = (makers[sampling](data.subset(chosen)) for data in both)
    for _ in range(8):
        for ours, theirs in zip(other.sample(), one.sample(), strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                assert ours.dtype == theirs.dtype
                assert torch.equal(ours, theirs)


def test_rows_are_numbered_as_in_numpy(both: Both) -> None:
    memory, disk = (data.subset([2, 0, 1]) for data in both)
    keys = [0, -1, slice(None), slice(3, 9), slice(9, 3, -2), slice(5, 5), [4, -2, 4]]
    keys += [np.array([[1, 2], [3, -4]]), np.int64(6)]
    for key in keys:
        for field in STEP_FIELDS:
            wanted, found = getattr(memory, field)[key], getattr(disk, field)[key]
            np.testing.assert_array_equal(found, wanted)
            assert found.dtype == wanted.dtype
            assert np.shape(found) == np.shape(wanted)
    np.testing.assert_array_equal(disk.observations[:, 1:][2:5], memory.observations[2:5, 1:])
    np.testing.assert_array_equal(disk.observations[2:5, 1:], memory.observations[2:5, 1:])
    with pytest.raises(IndexError):
        disk.observations[len(disk.observations)]
    taken = disk.observations[0:2]
    taken[:] = 7  # a copy, which changes nothing
    np.testing.assert_array_equal(disk.observations[0:2], memory.observations[0:2])


@pytest.mark.parametrize("sampling", ["windows", "episodes"])
def test_training_ends_in_the_same_bytes(
    tmp_path: Path, cache: Path, tiny: Any, sampling: str
) -> None:
    changes = {"sampling": sampling, "environment": "none", "held_out": 0.2}
    memory = tiny(tmp_path / "memory", **changes)
    disk = tiny(tmp_path / "disk", data_on="disk", data_cache=cache, **changes)
    one, other = train(memory), train(disk)
    assert one.pop("train_seconds") != other.pop("train_seconds")
    assert one == other
    weights = "last/agent.safetensors"
    assert (tmp_path / "memory" / weights).read_bytes() == (
        tmp_path / "disk" / weights
    ).read_bytes()


def test_masked_velocities(cache: Path) -> None:
    name = f"mask-velocity:{SHIPPED_ID}"
    assert_same(load_trajectories(name), load_trajectories(name, on="disk", cache=cache))


def test_an_environment_with_options_that_json_does_not_have(cache: Path) -> None:
    data = load_trajectories(SHIPPED_ID)
    spec = replace(gymnasium.spec("Hopper-v5"), kwargs={"start": np.zeros(3)})
    spaces = {"observation_space": data.observation_space, "action_space": data.action_space}
    env = SimpleNamespace(**spaces, spec=spec)
    assert (
        load_trajectories(SHIPPED_ID, env=env, on="disk", cache=cache).num_steps == data.num_steps
    )


def entries(cache: Path) -> set[Path]:
    return {path for path in cache.iterdir() if path.is_dir()}


def test_an_entry_is_made_once_and_anew_when_the_source_changes(tmp_path: Path) -> None:
    source, cache = tmp_path / "hopper-v0", tmp_path / "cache"
    shutil.copytree(SHIPPED_ROOT / SHIPPED_ID, source)
    load_trajectories(source, on="disk", cache=cache)
    [first] = entries(cache)
    written = (first / "steps.bin").stat().st_mtime_ns
    load_trajectories(source, on="disk", cache=cache)
    assert entries(cache) == {first}
    assert (first / "steps.bin").stat().st_mtime_ns == written
    file = source / "data" / "main_data.hdf5"
    with h5py.File(file, "r+") as content:
        content["episode_0/rewards"][0] = 1234.5
    os.utime(file, ns=(1, 1))
    data = load_trajectories(source, on="disk", cache=cache)
    assert len(entries(cache)) == 2
    assert data.rewards[0] == 1234.5


def test_a_source_that_breaks_off_leaves_nothing(tmp_path: Path, d4rl_file: Any) -> None:
    source, cache = tmp_path / "hopper-medium-v2.hdf5", tmp_path / "cache"
    shutil.copy(d4rl_file.path, source)
    with h5py.File(source, "r+") as file:
        file["observations"][-d4rl_file.unfinished_steps - 1, 2] = np.nan
    with pytest.raises(UserError, match="NaN or infinity"):
        load_trajectories(source, on="disk", cache=cache)
    assert entries(cache) == set()


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    load_trajectories(SHIPPED_ID, on="disk", cache=cache)
    [entry] = entries(cache)
    half = cache / f".{entry.name}.123.tmp"
    entry.rename(half)
    load_trajectories(SHIPPED_ID, on="disk", cache=cache)
    assert entries(cache) == {entry}


def test_broken_entries_and_places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cache = tmp_path / "cache"
    load_trajectories(SHIPPED_ID, on="disk", cache=cache)
    [entry] = entries(cache)
    content = (entry / "steps.bin").read_bytes()
    (entry / "steps.bin").write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=r"broken .*remove it to have it made anew"):
        load_trajectories(SHIPPED_ID, on="disk", cache=cache)
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"cannot be written.*--data-cache"):
        load_trajectories(SHIPPED_ID, on="disk", cache=tmp_path / "file")
    monkeypatch.setenv("AAREN_RL_CACHE", str(tmp_path / "own"))
    assert default_cache() == tmp_path / "own"
    monkeypatch.delenv("AAREN_RL_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))
    assert default_cache() == tmp_path / "user" / "aaren-rl"


LIMITED = """
import resource, sys, json
from pathlib import Path
from aaren_rl.data import WindowSampler, load_trajectories
from aaren_rl.training.build import split

used = int(next(l for l in open("/proc/self/status") if l.startswith("VmData")).split()[1]) << 10
resource.setrlimit(resource.RLIMIT_DATA, (used + (80 << 20),) * 2)
try:
    data = load_trajectories(sys.argv[1], on=sys.argv[2], cache=Path(sys.argv[3]))
    training, _ = split(data, 0.05)
    training.observation_statistics()
    sampler = WindowSampler(training, batch_size=64, context_length=20, seed=0)
    for _ in range(20):
        sampler.sample()
    print(json.dumps(training.num_steps))
except MemoryError:
    print(json.dumps("out of memory"))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="the limit counts what it should on Linux")
def test_data_beyond_memory(tmp_path: Path, shipped: TrajectoryDataset) -> None:
    """150 MB of steps and more in a process that may have 80 MB for data."""
    file, copies = tmp_path / "hopper-long-v2.hdf5", 6
    steps = shipped.num_steps * copies
    ends = np.zeros(shipped.num_steps, bool)
    ends[shipped.offsets[1:] - 1] = True
    wide = np.tile(shipped.observations, (1, 14))
    with h5py.File(file, "w") as target:
        for name, values in {
            "observations": wide,
            "actions": shipped.actions,
            "rewards": shipped.rewards.astype(np.float32),
            "terminals": ends,
            "timeouts": np.zeros_like(ends),
        }.items():
            node = target.create_dataset(name, (steps, *values.shape[1:]), values.dtype)
            for copy in range(copies):
                node[copy * len(values) : (copy + 1) * len(values)] = values
    assert file.stat().st_size > 150 << 20
    found = {}
    for on in ("memory", "disk"):
        process = subprocess.run(
            [sys.executable, "-c", LIMITED, str(file), on, str(tmp_path / "cache")],
            capture_output=True,
            text=True,
            timeout=120,
            check=True,
        )
        found[on] = json.loads(process.stdout)
    assert found == {"memory": "out of memory", "disk": pytest.approx(0.95 * steps, rel=0.01)}


def test_pages_are_given_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What was read does not stay in this process' memory, and reads the same again."""
    monkeypatch.setattr("aaren_rl.data.rows.RESIDENT_BYTES", 1 << 20)
    values = np.arange(1 << 21, dtype=np.int64).reshape(-1, 1024)  # 16 MiB
    values.tofile(tmp_path / "steps.bin")
    file = MappedFile(tmp_path / "steps.bin")
    array = file.array(np.dtype((np.int64, (1024,))))
    rows = Rows(array, np.zeros(1, np.int64), np.array([len(array)]), file)

    def resident() -> int:
        lines = Path("/proc/self/smaps").read_text().split("steps.bin")[1].splitlines()
        return int(next(line.split()[1] for line in lines if line.startswith("Rss:")))

    if not Path("/proc/self/smaps").is_file():
        pytest.skip("no /proc/self/smaps here")
    for start in range(0, 2048, 64):
        np.testing.assert_array_equal(rows[start : start + 64], values[start : start + 64])
        assert resident() <= 8 * 1024  # KiB; some map more than what was asked for
    np.testing.assert_array_equal(rows[:], values)

from __future__ import annotations

import importlib.util
import runpy
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.envs import (
    check_environment,
    environment_of,
    environment_spec,
    expert_dataset,
    make_vector_env,
    write_expert_dataset,
)
from aaren_rl.errors import UserError

SCRIPT = Path(__file__).parents[3] / "scripts" / "make_memory_data.py"
_spec = importlib.util.spec_from_file_location("make_memory_data", SCRIPT)
assert _spec is not None
assert _spec.loader is not None
script = importlib.util.module_from_spec(_spec)
sys.modules["make_memory_data"] = script
_spec.loader.exec_module(script)
MemoryDataConfig, make_memory_data = script.MemoryDataConfig, script.make_memory_data

TASKS = {
    "maze": "aaren/PassiveTMaze-v0?length=[5,30]&noise=0.5&cues=3",
    "recall": "aaren/Recall-v0?length=[12,40]&pairs=3&values=5&noise=0.1",
    "minigrid": "aaren/MiniGridMemoryS7-v0",
}


@pytest.fixture(params=TASKS)
def task(request: pytest.FixtureRequest) -> str:
    if request.param == "minigrid":
        pytest.importorskip("minigrid", reason="needs the extra minigrid")
    return TASKS[request.param]


def same(one: TrajectoryDataset, other: TrajectoryDataset) -> None:
    fields = ("observations", "actions", "rewards", "offsets", "terminated", "truncated")
    for field in fields:
        np.testing.assert_array_equal(getattr(one, field), getattr(other, field))


def test_episodes_are_what_the_environment_shows_for_their_seeds(task: str) -> None:
    data = expert_dataset(task, 300, seed=50)
    assert data.num_episodes == 300
    assert data.env_spec == environment_spec(task)
    env = gymnasium.make(data.env_spec)
    for index in [*range(20), 255, 256, 257, 299]:
        episode = data.episode(index)
        options: dict[str, Any] = {}
        if "Maze" in task:
            options["cue"] = int(episode.observations[0, :3].argmax())
        observation, _ = env.reset(seed=50 + index, options=options)
        for step, action in enumerate(episode.actions):
            np.testing.assert_array_equal(episode.observations[step], observation)
            observation, reward, terminated, truncated, _ = env.step(action)
            assert reward == episode.rewards[step]
        assert (terminated, truncated) == (episode.terminated, episode.truncated) == (True, False)


def test_every_episode_succeeds(task: str) -> None:
    data = expert_dataset(task, 300)
    assert data.reference_scores == (0.0, 1.0)
    if "MiniGrid" in task:
        assert data.episode_returns.min() > 0.9
    else:
        np.testing.assert_allclose(data.episode_returns, 1, rtol=1e-12)


def test_on_disk_as_in_memory(task: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    memory = expert_dataset(task, 40, seed=3)
    write_expert_dataset("test/expert-v0", task, 40, seed=3)
    disk = load_trajectories("test/expert-v0")
    same(memory, disk)
    assert disk.observation_space == memory.observation_space
    assert disk.action_space == memory.action_space
    assert disk.env_spec == memory.env_spec
    assert disk.reference_scores == (0.0, 1.0)
    env = make_vector_env(environment_of(disk), 2)
    check_environment(env, disk.observation_space, disk.action_space)
    env.close()
    with pytest.raises(UserError, match="there already"):
        write_expert_dataset("test/expert-v0", task, 40)


def test_seeds_decide(task: str) -> None:
    same(expert_dataset(task, 30, seed=5), expert_dataset(task, 30, seed=5))
    one, other = expert_dataset(task, 30, seed=5), expert_dataset(task, 30, seed=6)
    assert not np.array_equal(one.observations[:100], other.observations[:100])


def test_cues_are_balanced_and_in_no_order() -> None:
    data = expert_dataset("aaren/PassiveTMaze-v0?length=[2,40]&cues=5", 1000)
    cues = data.observations[data.offsets[:-1], :5].argmax(axis=1)
    np.testing.assert_array_equal(np.bincount(cues), [200] * 5)
    assert abs(np.corrcoef(cues[1:], cues[:-1])[0, 1]) < 0.1
    assert abs(np.corrcoef(cues, data.lengths)[0, 1]) < 0.1
    assert set(data.lengths) == set(range(2, 41))
    assert expert_dataset("aaren/PassiveTMaze-v0", 1).num_episodes == 1


@pytest.mark.parametrize("environment", ["Hopper-v5", "aaren/MaskVelocityHopper-v5"])
def test_there_is_no_expert_for_others(environment: str) -> None:
    with pytest.raises(UserError, match=r"no expert for it; aaren/PassiveTMaze"):
        expert_dataset(environment, 3)


def test_no_episodes_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        expert_dataset("aaren/Recall-v0", 0)


def test_the_command_writes_what_its_flags_say(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "elsewhere"))
    config = MemoryDataConfig(
        task="recall", root=tmp_path, episodes=50, seed=9, length=(8, 20), pairs=2, noise=0.5
    )
    data = load_trajectories(make_memory_data(config))
    assert data.name == "memory/recall-v0"
    same(data, expert_dataset("aaren/Recall-v0?length=[8,20]&pairs=2&noise=0.5", 50, seed=9))
    assert data.env_spec is not None
    assert data.env_spec.kwargs == {"length": [8, 20], "pairs": 2, "noise": 0.5}
    one = MemoryDataConfig(task="passive-tmaze", dataset_id="my/maze-v1", episodes=2, length=(7,))
    folder = make_memory_data(one)
    assert folder == tmp_path / "elsewhere" / "my" / "maze-v1"
    assert load_trajectories("my/maze-v1").lengths.tolist() == [7, 7]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        ({"task": "recall", "cues": 3}, "--cues: not an option of --task recall"),
        ({"task": "passive-tmaze", "random_length": True}, "--random-length"),
        ({"task": "minigrid-memory", "log_uniform": True}, "--log-uniform"),
        ({"task": "recall", "episodes": 0}, "--episodes must be at least 1"),
        ({"task": "recall", "seed": -1}, "--seed must not be negative"),
        ({"task": "recall", "length": (1, 2, 3)}, "length"),
        ({"task": "recall", "dataset_id": "nothing"}, "namespace/name-v0 expected"),
    ],
)
def test_flags_that_do_not_fit(flags: dict[str, Any], named: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=named):
        make_memory_data(MemoryDataConfig(root=tmp_path, **flags))
    assert not list(tmp_path.iterdir())


def test_the_script(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    command = f"{SCRIPT} --task recall --episodes 3 --length 9 --pairs 2 --root {tmp_path}"
    monkeypatch.setattr(sys, "argv", command.split())
    for code, said in ((0, "3 episodes, 27 steps"), (2, "there already")):
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(SCRIPT), run_name="__main__")
        assert stop.value.code == code
        out, err = capsys.readouterr()
        assert said in (err if code else out)

"""Evaluating a run's folder: rows, files, and what is refused before any work."""

from __future__ import annotations

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from evaluation_cases import agent_for, play_alone

from aaren_rl.agents import load_agent
from aaren_rl.data import load_dataset
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate
from aaren_rl.evaluation.evaluating import environment_of_agent
from aaren_rl.evaluation.rollouts import GIVE_UP, LONGEST_EPISODE, limit_of

FIELDS = {
    "agent",
    "mode",
    "target_return",
    "score_mean",
    "score_std",
    "normalized",
    "return_mean",
    "return_std",
    "length_mean",
    "episodes",
    "returns",
    "lengths",
}


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_a_row_for_each_mode_and_target(
    name: str, hopper_runs: dict[str, Path], tmp_path: Path
) -> None:
    file = tmp_path / "scores.json"
    config = EvaluateConfig(
        run=hopper_runs[name],
        mode=("carry", "reset", "window"),
        target_return=(3600.0, 100.0),
        episodes=2,
        seed=5,
        num_envs=1,
        json=file,
    )
    result = evaluate(config)
    written = json.loads(file.read_text())
    assert written == result.to_json()
    assert written["run"] == str(hopper_runs[name])
    assert written["checkpoint"] == "last"
    rows = result.rows
    assert [(row.mode, row.target_return) for row in rows] == [
        (mode, target) for mode in ("carry", "reset", "window") for target in (3600.0, 100.0)
    ]
    agent = load_agent(hopper_runs[name] / "last")
    for row in rows:
        assert set(row.to_json()) == FIELDS
        returns, lengths = play_alone(agent, "Hopper-v5", [5, 6], row.target_return, row.mode)
        assert row.agent == name
        assert row.lengths == lengths
        np.testing.assert_allclose(row.returns, returns, rtol=1e-3)
        scores = 100 * (np.array(row.returns) + 20.272305) / (3234.3 + 20.272305)
        assert row.score_mean == pytest.approx(scores.mean())
        assert row.score_std == pytest.approx(scores.std())


class Line(gym.Env[Any, Any]):
    """Ends by itself after 10 steps; has no time limit and no name."""

    observation_space: Any = gym.spaces.Box(-np.inf, np.inf, (11,), np.float64)
    action_space: Any = gym.spaces.Box(-1, 1, (3,), np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.np_random.normal(size=11), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return self.np_random.normal(size=11), float(action.sum()), self.t == 10, False, {}


def test_from_python(hopper_runs: dict[str, Path]) -> None:
    run = hopper_runs["decision-aaren"]
    agent = load_agent(run / "last")
    by_folder = evaluate(str(run), episodes=2, seed=5)
    assert evaluate(agent, episodes=2, seed=5).rows == by_folder.rows
    assert evaluate(SimpleNamespace(agent=agent), episodes=2, seed=5).rows == by_folder.rows
    assert evaluate(EvaluateConfig(run, episodes=2, seed=5)).rows == by_folder.rows
    modes = evaluate(agent, "Hopper-v5", episodes=1, mode=["carry", "window"], target_return=99)
    assert [(row.mode, row.target_return) for row in modes.rows] == [("carry", 99), ("window", 99)]
    one = Line()
    found = [
        evaluate(agent, env, episodes=5, target_return=[5, 6, 5]).rows
        for env in (Line, lambda: Line(), one, gym.wrappers.TimeLimit(one, 100))
    ]
    for rows in found:
        assert [(row.target_return, row.lengths) for row in rows] == [(5, [10] * 5), (6, [10] * 5)]
        np.testing.assert_allclose(rows[1].returns, found[0][1].returns, rtol=1e-3)
    vector = gym.vector.SyncVectorEnv([Line] * 2)
    assert evaluate(agent, vector, episodes=5, target_return=5).rows[0].lengths == [10] * 5
    with pytest.raises(UserError, match="episodes must be at least 1, got 0"):
        evaluate(agent, episodes=0)
    bad: list[tuple[str, Any]] = [("episodes", 2.5), ("seed", None), ("seed", 2**70)]
    for name, value in (*bad, ("target_return", ["a"])):
        with pytest.raises(UserError, match=f"{name} must be .*number.*, got"):
            evaluate(agent, **{name: value})
    with pytest.raises(UserError, match="--runtime onnx: nothing was given"):
        evaluate(EvaluateConfig(run, runtime="onnx"))


class Endless(Line):
    """Never ends, and names no time limit."""

    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, False, truncated, info


def test_endless_episodes_are_cut_after_the_datas_longest(hopper_runs: dict[str, Path]) -> None:
    agent = load_agent(hopper_runs["decision-aaren"] / "last")
    assert agent.spec.longest_episode == load_dataset("aaren-rl/hopper-small-v0").max_episode_length
    for longest, steps in ((60, 60), (None, LONGEST_EPISODE)):  # None: of an older version
        agent.spec = dataclasses.replace(agent.spec, longest_episode=longest)
        with pytest.warns(UserWarning, match=f"episodes are cut after {steps} steps"):
            [row] = evaluate(agent, Endless, episodes=1).rows
        assert row.lengths == [steps]


def test_a_limit_that_an_environment_names_and_does_not_keep(hopper_runs: dict[str, Path]) -> None:
    class Boastful(Endless):
        max_steps = 20

    agent = load_agent(hopper_runs["decision-aaren"] / "last")
    with pytest.warns(UserWarning, match="cut after 20 steps, since it goes on at the one"):
        [row] = evaluate(agent, Boastful, episodes=2).rows
    assert row.lengths == [20, 20]
    by_itself = gym.vector.SyncVectorEnv([Boastful])
    assert limit_of(by_itself, agent) == GIVE_UP


def test_targets_far_above_the_data_are_warned_of(hopper_runs: dict[str, Path]) -> None:
    agent = load_agent(hopper_runs["decision-aaren"] / "last")
    best = agent.spec.largest_return
    assert best is not None
    with pytest.warns(UserWarning, match=f"target return 1e.09 is far above .* data, {best:g}"):
        evaluate(agent, Line, episodes=1, target_return=1e9)


def test_defaults_are_the_agents_own(hopper_runs: dict[str, Path]) -> None:
    for name, mode, target in (
        ("decision-aaren", "carry", 3600.0),
        ("decision-transformer", "window", 3600.0),
        ("behavior-cloning", "carry", None),
    ):
        [row] = evaluate(EvaluateConfig(run=hopper_runs[name], episodes=1)).rows
        assert (row.agent, row.mode, row.target_return) == (name, mode, target)


def test_behavior_cloning_cannot_be_asked_for_a_return(hopper_runs: dict[str, Path]) -> None:
    run = hopper_runs["behavior-cloning"]
    refused(run, "--target-return 100 200: behavior-cloning", target_return=(100.0, 200.0))
    refused(run, "--mode window: behavior-cloning has no memory", mode=("window",))
    [row] = evaluate(EvaluateConfig(run=run, episodes=1)).rows
    assert row.target_return is None


def test_best_and_last_and_a_checkpoints_own_folder(
    hopper_runs: dict[str, Path], tmp_path: Path
) -> None:
    run = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-aaren"], run)
    best = load_agent(run / "best")  # it may be the last one: make it another
    with torch.no_grad():
        for parameter in best.parameters():
            parameter.mul_(1.5)
    best.save(run / "best")
    rows = {
        checkpoint: evaluate(EvaluateConfig(run=run, checkpoint=checkpoint, episodes=2)).rows
        for checkpoint in ("last", "best")
    }
    assert rows["best"] != rows["last"]
    for checkpoint in ("last", "best"):
        direct = evaluate(EvaluateConfig(run=run / checkpoint, episodes=2)).rows
        assert direct == rows[checkpoint]


def test_a_run_that_crashed_while_saving_still_evaluates(
    hopper_runs: dict[str, Path], tmp_path: Path
) -> None:
    """Between the two renames of a save the checkpoint is called `last.old`."""
    run = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-aaren"], run)
    wanted = evaluate(EvaluateConfig(run=run, episodes=1)).rows
    (run / "last").rename(run / "last.old")
    assert evaluate(EvaluateConfig(run=run, episodes=1)).rows == wanted


def test_the_environment_comes_from_the_user_or_from_the_agent(tmp_path: Path) -> None:
    agent = agent_for("Hopper-v5")
    assert environment_of_agent(agent) == "Hopper-v5"
    assert environment_of_agent(agent, "Walker2d-v5") == "Walker2d-v5"
    spec = gym.spec("Hopper-v5")
    object.__setattr__(agent.spec, "environment", spec.to_json())
    assert environment_of_agent(agent) == spec.to_json()
    object.__setattr__(agent.spec, "environment", None)
    with pytest.raises(UserError, match="--env is needed"):
        environment_of_agent(agent)


def refused(run: Path, message: str, **settings: Any) -> None:
    with pytest.raises(UserError, match=message) as caught:
        evaluate(EvaluateConfig(run=run, **settings))
    assert "\n" not in str(caught.value)


def test_folders_that_are_no_run(tmp_path: Path, hopper_runs: dict[str, Path]) -> None:
    refused(tmp_path / "nowhere", "not a training run: it has no last/ checkpoint")
    refused(tmp_path, "not a training run")
    refused(tmp_path, "it has no best/ checkpoint", checkpoint="best")
    run = tmp_path / "run"
    shutil.copytree(hopper_runs["decision-aaren"] / "last", run / "last")
    weights = run / "last" / "agent.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    refused(run, "agent.safetensors: truncated or not a safetensors file")
    weights.unlink()
    refused(run, "agent.safetensors: no such file")


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"episodes": 0}, "--episodes must be at least 1, got 0"),
        ({"episodes": -3}, "--episodes must be at least 1, got -3"),
        ({"num_envs": 0}, "--num-envs must be at least 1, got 0"),
        ({"seed": -1}, "--seed must not be negative, got -1"),
        ({"target_return": (float("nan"),)}, "--target-return must be finite"),
        ({"target_return": (1.0, float("inf"))}, "--target-return must be finite"),
        ({"environment": "HalfCheetah-v5"}, "has 17 values, .* has 11;"),
        ({"environment": "Hoper-v5"}, "environment 'Hoper-v5': "),
        ({"environment": "{}"}, "environment '{}': "),
    ],
)
def test_bad_settings(hopper_runs: dict[str, Path], settings: dict[str, Any], message: str) -> None:
    refused(hopper_runs["decision-aaren"], message, **settings)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_device_that_is_not_there(hopper_runs: dict[str, Path]) -> None:
    refused(hopper_runs["decision-aaren"], "--device cuda", device="cuda")


def test_json_files_that_cannot_be_written_are_refused_before_acting(
    hopper_runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def act(*_: Any, **__: Any) -> None:
        raise AssertionError("the agent acts")

    monkeypatch.setattr(sys.modules["aaren_rl.evaluation.evaluating"], "rollout", act)
    run = hopper_runs["decision-aaren"]
    refused(run, "--json .*scores.json: no folder", json=tmp_path / "nowhere" / "scores.json")
    below_a_file = tmp_path / "file"
    below_a_file.touch()
    refused(run, "--json .*scores.json: no folder", json=below_a_file / "scores.json")
    refused(run, "--json .*: .*folder", json=tmp_path)
    refused(run, "--json /proc/scores.json: cannot be written", json=Path("/proc/scores.json"))


def test_target_returns_may_be_an_array(hopper_runs: dict[str, Path]) -> None:
    agent = load_agent(hopper_runs["decision-aaren"])
    rows = evaluate(agent, episodes=1, target_return=np.array([1800.0, 3600.0])).rows
    assert [row.target_return for row in rows] == [1800.0, 3600.0]

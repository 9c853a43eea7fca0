"""What a run leaves in its folder, and whose folder it may use."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from run_cases import scalars, weights

from aaren_rl.agents import DecisionAgent, load_agent
from aaren_rl.data import load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.evaluation import Score
from aaren_rl.files import read_card
from aaren_rl.training import TrainConfig, train


def refused(config: Any, message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(config)
    assert "\n" not in str(caught.value)


@pytest.fixture(scope="module")
def finished(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The config of a finished run."""
    config = tiny(tmp_path_factory.mktemp("finished") / "run")
    train(config)
    return config


def test_a_run_leaves_what_the_readme_says(finished: Any) -> None:
    run = finished.out
    names = {path.name for path in run.iterdir() if not path.name.startswith("events.")}
    assert names == {"config.json", "summary.json", "last", "best"}
    assert len(list(run.glob("events.*"))) == 1
    assert TrainConfig.from_json(json.loads((run / "config.json").read_text()), run) == (
        dataclasses.replace(finished, out=None)
    )
    assert {path.name for path in (run / "last").iterdir()} == {
        "agent.json",
        "agent.safetensors",
        "training.json",
        "training.safetensors",
    }
    assert {path.name for path in (run / "best").iterdir()} == {
        "agent.json",
        "agent.safetensors",
        "training.json",
    }


def test_the_summary_says_what_came_of_it(finished: Any) -> None:
    summary = json.loads((finished.out / "summary.json").read_text())
    data = load_trajectories(finished.dataset)
    assert summary["agent"] == "decision-aaren"
    assert summary["dataset"] == "aaren-rl/hopper-small-v0"
    assert summary["mode"] == "carry"
    assert summary["updates"] == 30
    assert summary["seed"] == 0
    assert summary["parameters"] == load_agent(finished.out / "last").num_parameters
    scores = 100 * (data.episode_returns + 20.272305) / (3234.3 + 20.272305)
    assert summary["dataset_score"] == pytest.approx(scores.mean())
    assert [entry["update"] for entry in summary["history"]] == [15, 30]
    [score] = summary["scores"]
    assert len(score["returns"]) == score["episodes"] == 2
    assert summary["history"][-1]["score_mean"] == score["score_mean"]
    best = max(summary["history"], key=lambda entry: entry["score_mean"])
    assert summary["best"]["update"] == best["update"]
    assert summary["best"]["score_mean"] == best["score_mean"]
    assert read_card(finished.out / "best" / "training.json") == summary["best"]


def test_the_agent_takes_along_what_acting_needs(finished: Any) -> None:
    agent, data = load_agent(finished.out / "last"), load_trajectories(finished.dataset)
    assert isinstance(agent, DecisionAgent)
    mean, std = data.observation_statistics()
    np.testing.assert_array_equal(agent.observation_mean.numpy(), mean)
    np.testing.assert_array_equal(agent.observation_std.numpy(), std)
    spec = agent.spec
    assert spec.observation_space == data.observation_space
    assert spec.action_space == data.action_space
    assert spec.returns_scale == pytest.approx(data.returns_to_go.std(), rel=1e-5)
    assert spec.returns_shift == pytest.approx(data.returns_to_go.mean(), rel=1e-5)
    assert spec.target_returns == (3600.0,)
    assert spec.reference_scores == (-20.272305, 3234.3)
    assert spec.environment is not None
    assert "Hopper-v5" in spec.environment
    assert spec.dataset == data.name


def test_settings_of_the_task(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(
        tmp_path / "run",
        updates=1,
        normalize_observations=False,
        returns_scale=7.0,
        target_return=(5.0, 6.0),
        environment="none",
    )
    summary = train(config)
    assert summary["scores"] == summary["history"] == []
    assert summary["best"] is None
    assert not (tmp_path / "run" / "best").exists()
    agent = load_agent(tmp_path / "run" / "last")
    assert (agent.spec.returns_scale, agent.spec.returns_shift) == (7.0, 0.0)
    assert agent.spec.target_returns == (5.0, 6.0)
    assert agent.spec.environment is None
    assert (agent.observation_mean == 0).all()
    assert (agent.observation_std == 1).all()


def test_the_same_run_again_needs_resume(finished: Any) -> None:
    before = weights(finished.out)
    refused(finished, f"--out {finished.out}: already holds this run; give --resume")
    assert weights(finished.out) == before


def test_a_different_run_is_refused_and_the_flags_named(finished: Any) -> None:
    before = weights(finished.out)
    shape = dataclasses.replace(finished.model, width=32)
    other = dataclasses.replace(finished, learning_rate=2e-3, seed=1, model=shape)
    for resume in (False, True):
        refused(
            dataclasses.replace(other, resume=resume),
            r"already holds a different run \(--learning-rate 0.001 there, 0.002 here; "
            r"--seed 0 there, 1 here; --width 16 there, 32 here\)",
        )
    assert weights(finished.out) == before
    # where it is computed is no difference
    again = dataclasses.replace(finished, device="auto", resume=True)
    assert train(again)["updates"] == 30


def test_a_run_from_before_goes_on_as_it_began(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its config has no clip and no unfinished episode; `--resume` takes what it did then."""
    from aaren_rl.cli import main

    shape = {"observation_clip": float("inf")}
    config = tiny(tmp_path, environment="none", keep_unfinished_episode=True, model=shape)
    train(config)
    before = weights(tmp_path)
    (tmp_path / "summary.json").unlink()
    file = tmp_path / "config.json"
    content = json.loads(file.read_text())
    del content["keep_unfinished_episode"], content["model"]["observation_clip"]
    file.write_text(json.dumps(content))
    again = TrainConfig.from_json(content, file)
    assert again == dataclasses.replace(config, out=None)
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 0, capsys.readouterr().err
    assert weights(tmp_path) == before
    today = dataclasses.replace(config, resume=True, keep_unfinished_episode=False)
    refused(today, "--keep-unfinished-episode True there, False here")


def test_two_processes_do_not_train_in_one_folder(finished: Any) -> None:
    before = weights(finished.out)
    resumed = dataclasses.replace(finished, resume=True)
    with FileLock(finished.out / ".training.lock"):
        refused(resumed, f"--out {finished.out}: another process is training there")
    assert weights(finished.out) == before
    (finished.out / ".training.lock").touch()  # as a process leaves it that was killed
    assert train(resumed)["updates"] == 30


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is there")
def test_a_start_that_failed_leaves_the_folder_free(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    refused(tiny(tmp_path, device="cuda"), "--device cuda")
    train(tiny(tmp_path, updates=1, environment="none", learning_rate=0.02))


def test_a_broken_config_is_said(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(tmp_path)
    for text in ('{"updates": 3', '{"updates": NaN}', '{"seed": -Infinity}', '{"seed": 1e999}'):
        (tmp_path / "config.json").write_text(text)
        refused(config, "config.json: not readable as JSON")


def test_a_broken_checkpoint_is_said(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", updates=2, environment="none")
    train(config)
    (tmp_path / "run" / "summary.json").unlink()
    for file in ("training.safetensors", "agent.safetensors", "training.json"):
        path = tmp_path / "run" / "last" / file
        content = path.read_bytes()
        path.write_bytes(content[: len(content) - 20])
        refused(dataclasses.replace(config, resume=True), file)
        path.write_bytes(content)
    assert train(dataclasses.replace(config, resume=True))["updates"] == 2


def test_a_folder_that_cannot_be_written(tiny: Callable[..., Any], tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("precious")
    refused(tiny(file / "run"), f"--out {file / 'run'}: cannot be written")
    refused(tiny(file), f"--out {file}: cannot be written")
    refused(tiny(Path("/proc/run")), "--out /proc/run: cannot be written")
    assert file.read_text() == "precious"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"dataset": "aaren-rl/hoper-small-v0"}, "aaren-rl/hoper-small-v0"),
        ({"dataset": "/nowhere/data.hdf5"}, "/nowhere/data.hdf5"),
        ({"environment": "HalfCheetah-v5"}, "has 17 values, .* has 11;"),
        ({"environment": "Hoper-v5"}, "environment 'Hoper-v5'"),
        (
            {"model": {"timestep_embedding": "learned", "max_episode_length": 500}},
            "an episode of aaren-rl/hopper-small-v0 has 1000 steps, .* ends at 500",
        ),
        ({"updates": 0}, "--updates must be at least 1"),
    ],
)
def test_mistakes_are_found_before_anything_is_written(
    changes: dict[str, Any], message: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    refused(tiny(tmp_path / "run", **changes), message)
    assert not any((tmp_path / "run").glob("*"))
    # so that the corrected call needs no other folder
    assert train(tiny(tmp_path / "run", updates=1, environment="none"))["updates"] == 1


def test_agents_that_need_no_table_learn_from_any_length(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    model = {"max_episode_length": 500, "timestep_embedding": "none"}
    train(tiny(tmp_path / "aaren", updates=1, episodes=1, model=model))
    bc = tiny(
        tmp_path / "bc",
        agent="behavior-cloning",
        updates=1,
        episodes=1,
        model={"timestep_embedding": "learned", "max_episode_length": 500},
    )
    assert train(bc)["scores"][0]["target_return"] is None


def test_best_is_the_first_of_the_highest_scores(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    evaluator = sys.modules["aaren_rl.training.evaluator"]
    means = iter([10.0, 30.0, 20.0, 30.0, 5.0, 29.0])

    def score(agent: Any, episodes: Any, target: float | None) -> Score:
        return Score(target, next(means), 1.0, True, 0.0, 0.0, 1.0, 1, [0.0], [1])

    monkeypatch.setattr(evaluator, "score", score)
    monkeypatch.setattr(evaluator, "rollout", lambda *_, **__: None)
    summary = train(tiny(tmp_path, updates=6, evaluate_every=1))
    assert summary["best"]["update"] == 2
    assert summary["best"]["score_mean"] == 30.0
    assert weights(tmp_path, "best") != weights(tmp_path, "last")
    assert [value for _, value in scalars(tmp_path)["evaluation/target_3600/score"]] == [
        10.0,
        30.0,
        20.0,
        30.0,
        5.0,
        29.0,
    ]


def test_evaluations_and_the_last_update(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """An interval that does not divide the updates: there is an evaluation at the end still."""
    summary = train(tiny(tmp_path, updates=7, evaluate_every=3, episodes=1))
    assert [entry["update"] for entry in summary["history"]] == [3, 6, 7]

"""An environment that fails while an agent acts in it: what was learned is kept."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_task import LINE, SMALL, Line, line_data, line_file
from run_cases import scalars, weights

from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.training import Callback, train

HOW: dict[str, Any] = {**SMALL, "env": LINE, "evaluate_every": 10}


def dies(step: int) -> None:
    if step >= 5:
        raise RuntimeError("simulator died")


@pytest.fixture
def misbehave(monkeypatch: pytest.MonkeyPatch) -> Callable[[Any], None]:
    return lambda at_step: monkeypatch.setattr(Line, "at_step", staticmethod(at_step))


def test_training_goes_on_and_the_error_is_recorded(
    misbehave: Callable[[Any], None], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    misbehave(dies)
    run = train(line_data(), out=tmp_path / "run", **HOW)
    assert (run.scores, run.history, run.summary["best"]) == ([], [], None)
    errors = json.loads((tmp_path / "run" / "summary.json").read_text())["evaluation_errors"]
    assert [row["update"] for row in errors] == [10, 20]
    assert all("simulator died" in row["error"] for row in errors)
    said = capsys.readouterr().err
    assert "evaluation after update 10 failed: " in said
    assert "simulator died; training goes on" in said
    # It has learned as it would have without an environment.
    train(line_data(), out=tmp_path / "none", **HOW | {"env": "none"})
    assert weights(tmp_path / "run") == weights(tmp_path / "none")


def test_scores_of_evaluations_that_worked_stay(
    misbehave: Callable[[Any], None], tmp_path: Path
) -> None:
    class Breaks(Callback):
        def on_evaluation(self, trainer: Any, scores: Any) -> None:
            misbehave(dies)

    run = train(line_data(), out=tmp_path / "run", callbacks=[Breaks()], **HOW)
    assert [row.update for row in run.history] == [10]
    assert run.scores == []
    assert [step for step, _ in scalars(tmp_path / "run")["evaluation/target_10/score"]] == [10]


def test_stop_if_so_wished(misbehave: Callable[[Any], None], tmp_path: Path) -> None:
    misbehave(dies)
    how = {**HOW, "on_evaluation_error": "stop", "out": tmp_path / "run"}
    with pytest.raises(UserError, match=r"evaluation after update 10 failed: .*simulator died"):
        train(line_data(), **how)
    progress = json.loads((tmp_path / "run" / "last" / "training.json").read_text())
    assert progress["update"] == 10
    # With the simulator mended it goes on.
    misbehave(lambda step: None)
    run = train(line_data(), resume=True, **how)
    assert [row.update for row in run.history] == [10, 20]


@pytest.mark.parametrize("reward", [-float("inf"), float("nan")])
def test_scores_that_are_not_finite(
    reward: float, misbehave: Callable[[Any], None], tmp_path: Path
) -> None:
    """They are no scores: JSON has no such numbers."""
    misbehave(lambda step: reward if step == 10 else None)
    run = train(line_data(), out=tmp_path / "run", **HOW)
    assert run.scores == []
    assert "a finite number expected" in run.summary["evaluation_errors"][0]["error"]

    def refuse(constant: str) -> None:
        raise AssertionError(constant)

    for file in ("summary.json", "last/training.json"):
        json.loads((tmp_path / "run" / file).read_text(), parse_constant=refuse)


def test_one_environment_at_a_time(tmp_path: Path) -> None:
    """`num_envs=1`, for simulators of which only one can run: the same episodes."""
    one = train(line_data(), **HOW | {"num_envs": 1, "episodes": 3})
    many = train(line_data(), **HOW | {"episodes": 3})
    assert one.scores[0].lengths == many.scores[0].lengths == [10, 10, 10]


def test_an_environment_that_changes_the_working_directory(
    misbehave: Callable[[Any], None],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    for folder in (home, elsewhere):
        folder.mkdir()
    line_file(home / "line.hdf5")
    monkeypatch.chdir(home)
    misbehave(lambda step: os.chdir(elsewhere))
    words = ["train", "--dataset", "line.hdf5", "--out", "run", "--updates", "4", "--env", LINE]
    assert main([*words, "--evaluate-every", "2", "--episodes", "1", "--width", "8"]) == 0
    words = ["compare", "--dataset", "line.hdf5", "--out", "both", "--updates", "2", "--env", LINE]
    words += ["--seeds", "0", "1", "--agents", "behavior-cloning", "--episodes", "1"]
    assert main(words) == 0
    assert main(["evaluate", "run", "--episodes", "1", "--json", "scores.json"]) == 0
    assert {"summary.json", "last"} <= {path.name for path in (home / "run").iterdir()}
    assert (home / "both/behavior-cloning/seed-1/summary.json").is_file()
    assert (home / "both/comparison.json").is_file()
    assert (home / "scores.json").is_file()
    assert not list(elsewhere.iterdir())
    assert "error" not in capsys.readouterr().err


@pytest.mark.parametrize("what", ["grad", "dtype", "device", "draws", "overflow"])
def test_global_settings_stay(what: str, misbehave: Callable[[Any], None]) -> None:
    def changes(step: int) -> None:
        if what == "grad":
            torch.set_grad_enabled(False)
        elif what == "dtype":
            torch.set_default_dtype(torch.float64)
        elif what == "device":
            torch.set_default_device("meta")
        elif what == "overflow":
            np.seterr(all="raise")
        else:
            torch.rand(7)

    how, before = HOW | {"dropout": 0.3}, np.geterr()
    plain = train(line_data(), **how)
    misbehave(changes)
    try:
        run = train(line_data(), **how)
        assert torch.get_default_dtype() is torch.float32
        assert torch.is_grad_enabled()
        assert torch.get_default_device() == torch.device("cpu")
        assert np.geterr() == before
    finally:
        torch.set_grad_enabled(True)
        torch.set_default_dtype(torch.float32)
        torch.set_default_device(None)
        np.seterr(**before)
    assert run.scores == plain.scores
    pairs = zip(run.agent.parameters(), plain.agent.parameters(), strict=True)
    assert all(torch.equal(ours, theirs) for ours, theirs in pairs)

"""A run that was stopped, killed or crashed and went on is the run that was not, to the bit."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_cases import assert_same_run, deterministic, scalars, signal_at_batch, summary, weights

from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate
from aaren_rl.training import Interrupted, train

ROOT = Path(__file__).parents[2]
ENVIRONMENT = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def resumed(config: Any) -> Any:
    return dataclasses.replace(config, resume=True)


@pytest.mark.parametrize("name", ["decision-aaren", "behavior-cloning"])
def test_the_seed_decides_everything(name: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    runs = {
        run: tiny(tmp_path / run, agent=name, seed=seed)
        for run, seed in {"one": 3, "same": 3, "other": 4}.items()
    }
    for config in runs.values():
        train(config)
    assert_same_run(tmp_path / "same", tmp_path / "one")
    assert weights(tmp_path / "other") != weights(tmp_path / "one")
    losses = [scalars(tmp_path / run)["training/loss"] for run in ("one", "other")]
    assert losses[0] != losses[1]
    assert summary(tmp_path / "one")["scores"] != summary(tmp_path / "other")["scores"]


@pytest.mark.parametrize(
    ("name", "precision", "sampling", "held_out"),
    [
        ("decision-aaren", "32", "windows", 0.05),
        ("decision-aaren", "bf16", "streams", 0.0),
        ("decision-aaren", "32", "episodes", 0.0),
        ("decision-transformer", "bf16", "windows", 0.0),
        ("decision-transformer", "32", "streams", 0.0),
        ("decision-lstm", "32", "streams", 0.0),
        ("decision-min-gru", "32", "streams", 0.0),
        ("behavior-cloning", "32", "windows", 0.05),
    ],
)
def test_stopped_anywhere_and_resumed_is_not_stopped(
    name: str,
    precision: str,
    sampling: str,
    held_out: float,
    tiny: Callable[..., Any],
    tmp_path: Path,
) -> None:
    """Ctrl-C at the first update, in mid-run, at an evaluation's update, at the last update."""
    whole = tiny(
        tmp_path / "whole",
        agent=name,
        precision=precision,
        sampling=sampling,
        held_out=held_out,
        checkpoint_every=7,
    )
    train(whole)
    config = dataclasses.replace(whole, out=tmp_path / "stopped")
    done = 0
    for stop in (1, 13, 15, 30):
        with pytest.MonkeyPatch.context() as patch:
            signal_at_batch(patch, sampling, stop - done)
            with pytest.raises(Interrupted) as caught:
                train(resumed(config) if done else config)
        assert caught.value.update == stop
        assert not (tmp_path / "stopped" / "summary.json").exists()
        done = stop
    train(resumed(config))
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_with_predicted_returns(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The condition `max-return`: the same run to the bit, and no return is asked for anywhere."""
    whole = tiny(tmp_path / "whole", model={"condition": "max-return"}, held_out=0.05)
    content = train(whole)
    config = dataclasses.replace(whole, out=tmp_path / "stopped")
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 13)
        with pytest.raises(Interrupted):
            train(config)
    train(resumed(config))
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")
    assert [row["target_return"] for row in content["scores"]] == [None]
    tags = scalars(tmp_path / "whole")
    assert [step for step, _ in tags["evaluation/score"]] == [15, 30]
    assert not [tag for tag in tags if "target" in tag]
    [row] = evaluate(EvaluateConfig(tmp_path / "whole", episodes=1)).rows
    assert row.target_return is None
    with pytest.raises(UserError, match="--target-return 3600: decision-aaren with --condition"):
        evaluate(EvaluateConfig(tmp_path / "whole", target_return=(3600.0,)))


def test_stopped_in_an_evaluation(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The evaluation is taken back and made anew."""
    whole = tiny(tmp_path / "whole", target_return=(3600.0, 1800.0))
    train(whole)
    config = dataclasses.replace(whole, out=tmp_path / "stopped")
    evaluator = sys.modules["aaren_rl.training.evaluator"]
    original, calls = evaluator.rollout, []

    def rollout(*args: Any, **settings: Any) -> Any:
        calls.append(settings["target_return"])
        if len(calls) == 4:  # the second evaluation's second target
            signal.raise_signal(signal.SIGINT)
        return original(*args, **settings)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(evaluator, "rollout", rollout)
        with pytest.raises(Interrupted) as caught:
            train(config)
    assert caught.value.update == 30
    assert calls == [3600.0, 1800.0, 3600.0, 1800.0]
    train(resumed(config))
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


class Crash(BaseException):
    """The machine goes down."""


@pytest.fixture(scope="module")
def nowhere(tiny: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The settings of a finished run that was never evaluated in an environment."""
    out = tmp_path_factory.mktemp("runs") / "whole"
    config = tiny(out, checkpoint_every=10, environment="none")
    train(config)
    return config


@pytest.mark.parametrize("moment", range(1, 9))
def test_crashed_at_any_rename(moment: int, nowhere: Any, tmp_path: Path) -> None:
    """Renames are where a save can be half done. The second save's are crashed, one after one."""
    config = dataclasses.replace(nowhere, out=tmp_path / "crashed")
    calls: list[str] = []

    def crashing(original: Callable[..., None]) -> Callable[..., None]:
        def rename(source: Any, target: Any) -> None:
            at_work = (tmp_path / "crashed" / "last").exists() or calls
            if at_work:
                calls.append(Path(target).name)
                if len(calls) == moment:
                    raise Crash
            original(source, target)

        return rename

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "rename", crashing(os.rename))
        patch.setattr(os, "replace", crashing(os.replace))
        with pytest.raises(Crash):
            train(config)
    expected = ["agent.safetensors", "agent.json", "training.safetensors", "training.json"]
    assert calls == [*expected, "last.old", "last", *expected][:moment]
    train(resumed(config))
    for file in ("agent.safetensors", "training.safetensors"):
        one, other = (run / "last" / file for run in (config.out, nowhere.out))
        assert one.read_bytes() == other.read_bytes()
    assert deterministic(scalars(config.out)) == deterministic(scalars(nowhere.out))


def test_crashed_before_the_first_checkpoint(
    tiny: Callable[..., Any], hopper_runs: dict[str, Path], tmp_path: Path
) -> None:
    """There is nothing to go on from: it begins again, and what it had logged is taken back."""
    config = tiny(tmp_path / "crashed")

    def crash(*_: Any) -> None:
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys.modules["aaren_rl.training.trainer"].Trainer, "_save", crash)
        with pytest.raises(Crash):
            train(config)
    assert [step for step, _ in scalars(tmp_path / "crashed")["training/loss"]] == [5, 10, 15]
    assert not (tmp_path / "crashed" / "last").exists()
    train(resumed(config))
    assert_same_run(tmp_path / "crashed", hopper_runs["decision-aaren"])


@pytest.mark.parametrize("moment", ["before", "after"])
def test_crashed_in_an_evaluation(moment: str, tiny: Callable[..., Any], tmp_path: Path) -> None:
    """The checkpoint was written before it; what the evaluation had logged is not there twice."""
    whole = tiny(tmp_path / "whole", held_out=0.05)
    train(whole)
    config = dataclasses.replace(whole, out=tmp_path / "crashed")
    trainer = sys.modules["aaren_rl.training.trainer"].Trainer
    original = trainer._evaluate

    def crash(self: Any) -> None:
        if moment == "after":
            original(self)
        raise Crash

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trainer, "_evaluate", crash)
        with pytest.raises(Crash):
            train(config)
    progress = json.loads((tmp_path / "crashed" / "last" / "training.json").read_text())
    assert (progress["update"], progress["evaluated_at"]) == (15, -1)
    train(resumed(config))
    assert_same_run(tmp_path / "crashed", tmp_path / "whole")


def test_resuming_a_finished_run_changes_nothing(
    tiny: Callable[..., Any], hopper_runs: dict[str, Path], tmp_path: Path
) -> None:
    config = tiny(tmp_path / "again")
    first = train(config)
    assert train(resumed(config)) == first
    assert_same_run(tmp_path / "again", hopper_runs["decision-aaren"])


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *arguments],
        cwd=ROOT,
        env=ENVIRONMENT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_ctrl_c_in_a_terminal(
    tiny: Callable[..., Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A process of its own, SIGINT once it trains: exit code 130, a checkpoint, the same end."""
    changes = {"updates": 240, "evaluate_every": 120, "checkpoint_every": 20}
    whole = tiny(tmp_path / "whole", **changes)
    train(whole)
    run = tmp_path / "stopped"
    flags = [
        *("--updates", "240", "--evaluate-every", "120", "--checkpoint-every", "20"),
        *("--batch-size", "8", "--learning-rate", "1e-3", "--episodes", "2", "--log-every", "5"),
        *("--width", "16", "--layers", "1", "--context-length", "5", "--device", "cpu"),
        *("--held-out", "0", "--precision", "32"),
    ]
    process = start("scripts/train.py", *flags, "--out", str(run))
    while process.poll() is None and not (run / "last").exists():
        time.sleep(0.005)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
    last_line = errors.strip().splitlines()[-1]
    stopped_at = json.loads((run / "last" / "training.json").read_text())["update"]
    assert last_line == f"stopped after update {stopped_at}; all is saved, --resume goes on"
    assert 20 <= stopped_at < 240
    assert not (run / "summary.json").exists()

    assert main(["train", "--out", str(run), "--resume"]) == 0
    assert "decision-aaren on aaren-rl/hopper-small-v0, 240 updates" in capsys.readouterr().out
    assert_same_run(run, tmp_path / "whole")

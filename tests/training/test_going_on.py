"""Runs that go on: with more updates, with data elsewhere, from other weights, after damage."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from line_task import SMALL, line_data, line_file
from run_cases import scalars, signal_at_batch, weights

from aaren_rl.agents import load_agent
from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.files import RUN_FILES
from aaren_rl.training import Interrupted, train

ROOT = Path(__file__).parents[2]
NOWHERE: dict[str, Any] = {**SMALL, "env": "none"}


def stopped(data: Any, out: Path, update: int = 12, **changes: Any) -> None:
    """A run that was interrupted after an update."""
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", update)
        with pytest.raises(Interrupted):
            train(data, out=out, **{**NOWHERE, **changes})


def test_more_updates_than_first_asked_for(tmp_path: Path) -> None:
    """A constant rate: the longer run to the bit. From the command line too."""
    how = {**NOWHERE, "schedule": "constant", "warmup": 0.0}
    file = line_file(tmp_path / "line.hdf5")
    whole = train(file, out=tmp_path / "whole", **how | {"updates": 40})
    train(file, out=tmp_path / "run", **how)
    assert main(["train", "--resume", "--out", str(tmp_path / "run"), "--updates", "40"]) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")
    summary = json.loads((tmp_path / "run" / "summary.json").read_text())
    assert summary["updates"] == whole.summary["updates"] == 40
    steps = [step for step, _ in scalars(tmp_path / "run")["training/loss"]]
    assert steps == list(range(5, 41, 5))


def test_the_schedule_is_that_of_the_longer_run(tmp_path: Path) -> None:
    train(line_data(), out=tmp_path / "run", **NOWHERE | {"log_every": 1})
    how = {**NOWHERE, "updates": 40, "log_every": 1}
    train(line_data(), out=tmp_path / "run", resume=True, **how)
    train(line_data(), out=tmp_path / "whole", **how)
    rates, wanted = (
        dict(scalars(tmp_path / name)["training/learning_rate"]) for name in ("run", "whole")
    )
    assert {step: rates[step] for step in range(21, 41)} == {
        step: wanted[step] for step in range(21, 41)
    }
    assert rates[21] > rates[20]  # the cosine rises again


def test_fewer_updates_than_done_are_refused(tmp_path: Path) -> None:
    stopped(line_data(), tmp_path / "run")
    with pytest.raises(UserError, match="--updates 11: the run has done 12 already"):
        train(line_data(), out=tmp_path / "run", resume=True, **NOWHERE | {"updates": 11})
    run = train(line_data(), out=tmp_path / "run", resume=True, **NOWHERE | {"updates": 13})
    assert run.summary["updates"] == 13


def test_data_that_moved_and_a_run_that_moved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Contents are compared, not paths; the new path is remembered."""
    monkeypatch.chdir(tmp_path)
    whole = train(line_file(Path("scratch/line.hdf5")), out="whole", **NOWHERE)
    assert whole.summary["updates"] == 20
    stopped(Path("scratch/line.hdf5"), Path("run"))
    shutil.move("scratch", "archive")
    shutil.move("run", "moved")
    assert main(["train", "--resume", "--out", "moved"]) == 2
    error = capsys.readouterr().err.strip().splitlines()[-1]
    assert "scratch/line.hdf5" in error
    assert "if the data have moved, give --dataset with their new place" in error
    line_file(Path("other.hdf5"), seed=1)
    assert main(["train", "--resume", "--out", "moved", "--dataset", "other.hdf5"]) == 2
    assert "moved has learned from" in capsys.readouterr().err
    assert main(["train", "--resume", "--out", "moved", "--dataset", "archive/line.hdf5"]) == 0
    assert weights(Path("moved")) == weights(Path("whole"))
    # From another working directory, without another word.
    Path("elsewhere").mkdir()
    monkeypatch.chdir("elsewhere")
    (tmp_path / "moved" / "summary.json").unlink()
    assert main(["train", "--resume", "--out", str(tmp_path / "moved")]) == 0


def test_other_data_for_a_finished_run_are_refused(tmp_path: Path) -> None:
    train(line_file(tmp_path / "line.hdf5"), out=tmp_path / "run", **NOWHERE)
    other = line_file(tmp_path / "other.hdf5", seed=1)
    with pytest.raises(UserError, match="not the data"):
        train(other, out=tmp_path / "run", resume=True, **NOWHERE)


def test_a_checkpoint_of_an_older_version(tmp_path: Path) -> None:
    """Without checksums, fingerprint and the new settings."""
    file = line_file(tmp_path / "line.hdf5")
    train(file, out=tmp_path / "whole", **NOWHERE)
    stopped(file, tmp_path / "run")
    for name, unknown in (
        (
            "last/training.json",
            {"sha256", "config", "data", "logged", "logged_at", "evaluation_errors"},
        ),
        ("last/agent.json", {"sha256"}),
        ("config.json", {"num_envs", "loggers", "on_evaluation_error"}),
    ):
        content = json.loads((tmp_path / "run" / name).read_text())
        assert unknown <= content.keys()
        old = {key: value for key, value in content.items() if key not in unknown}
        (tmp_path / "run" / name).write_text(json.dumps(old))
    assert main(["train", "--resume", "--out", str(tmp_path / "run")]) == 0
    assert weights(tmp_path / "run") == weights(tmp_path / "whole")


def test_weights_of_another_run_as_a_start(tmp_path: Path) -> None:
    """With its shape, and its scales of observations and returns."""
    train(line_data(), out=tmp_path / "first", **NOWHERE)
    other = line_data(seed=1)
    settings = {name: NOWHERE[name] for name in NOWHERE.keys() - {"width", "layers"}}
    del settings["context_length"]
    still = {**settings, "updates": 1, "schedule": lambda _: 0.0}
    run = train(other, init_from=tmp_path / "first", out=tmp_path / "second", **still)
    source = load_agent(tmp_path / "first" / "last")
    for name, tensor in source.state_dict().items():
        torch.testing.assert_close(run.agent.state_dict()[name], tensor, rtol=0, atol=0)
    assert run.agent.config == source.config
    assert run.agent.spec.returns_shift == source.spec.returns_shift
    mean, _ = other.observation_statistics()
    assert not np.allclose(run.agent.observation_mean.numpy(), mean)
    learned = train(other, init_from=tmp_path / "first", **settings)
    assert not torch.equal(next(learned.agent.parameters()), next(source.parameters()))
    whole = train(other, init_from=tmp_path / "first", out=tmp_path / "whole", **settings)
    assert whole.summary["updates"] == 20
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 12)
        with pytest.raises(Interrupted):
            train(other, init_from=tmp_path / "first", out=tmp_path / "again", **settings)
    (tmp_path / "first").rename(tmp_path / "elsewhere")  # going on does not need it
    train(other, init_from=tmp_path / "first", out=tmp_path / "again", resume=True, **settings)
    assert weights(tmp_path / "again") == weights(tmp_path / "whole")
    (tmp_path / "elsewhere").rename(tmp_path / "first")
    for changes, message in (
        ({"width": 32}, "--init-from .*: its shape does not fit"),
        ({"agent": "decision-lstm"}, "holds a decision-aaren; --agent decision-lstm was asked"),
        ({"init_from": tmp_path / "nowhere"}, "nowhere: not a training run"),
    ):
        with pytest.raises(UserError, match=message):
            train(other, **{"init_from": tmp_path / "first", **settings, **changes})


@pytest.mark.parametrize(
    "file",
    [
        *("last/agent.safetensors", "last/agent.json", "last/training.safetensors"),
        *("last/training.json", "summary.json"),
    ],
)
def test_a_flipped_bit_is_said(file: str, tmp_path: Path) -> None:
    """Each file of a run, at places all over it; none is resumed without a word."""
    run = tmp_path / "run"
    if file == "summary.json":
        train(line_data(), out=run, **NOWHERE)
    else:
        stopped(line_data(), run)
    path = run / file
    content = path.read_bytes()
    end = len(content) - 2  # behind it is a newline, in JSON
    if file == "summary.json":  # one without checksums is an older version's, and read
        end = content.index(b'"sha256"')
    for place in np.linspace(0, end, 13).astype(int):
        damaged = bytearray(content)
        damaged[place] ^= 1
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=r"\.(json|safetensors)"):
            train(line_data(), out=run, resume=True, **NOWHERE)
    path.write_bytes(content)
    train(line_data(), out=run, resume=True, **NOWHERE)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *(("updates", [3]), ("updates", "3"), ("updates", None), ("updates", 3.5)),
        *(("learning_rate", [1]), ("target_return", 3), ("target_return", ["a"])),
        *(("agent", []), ("agent", "nobody"), ("mode", "fly"), ("data_cache", 7), ("seed", {})),
        *(("model", []), ("loggers", "tensorboard"), ("loggers", ["nobody"]), ("held_out", "x")),
    ],
)
def test_a_config_with_a_value_of_another_type(
    field: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "config.json").write_text(
        json.dumps({"dataset": "aaren-rl/hopper-small-v0", "model": {}, field: value})
    )
    assert main(["train", "--resume", "--out", str(tmp_path)]) == 2
    [line] = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")


def test_more_devices_than_it_was_trained_by_leave_no_processes(tmp_path: Path) -> None:
    """A `config.json` with another number of devices: refused before any process is started."""
    run = tmp_path / "run"
    stopped(line_file(tmp_path / "line.hdf5"), run)
    content = json.loads((run / "config.json").read_text())
    (run / "config.json").write_text(json.dumps({**content, "devices": 2}))
    process = subprocess.run(
        [sys.executable, "scripts/train.py", "--resume", "--out", str(run)],
        cwd=ROOT,
        capture_output=True,  # ends only when every process that holds the pipes has ended
        text=True,
        timeout=120,
        check=False,
    )
    assert process.returncode == 2
    assert "--devices 1 there, 2 here" in process.stderr


def test_a_config_that_was_edited(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The checkpoint knows its settings: another one is refused by name, a missing one is not."""
    run = tmp_path / "run"
    stopped(line_file(tmp_path / "line.hdf5"), run)
    file = run / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "batch_size": 7}))
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    assert main(["train", "--resume", "--out", str(run)]) == 2
    assert "--batch-size 8 there, 7 here" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}
    del content["top_percent"], content["on_evaluation_error"]  # at their defaults
    file.write_text(json.dumps(content))
    assert main(["train", "--resume", "--out", str(run)]) == 0


def test_without_its_config_a_run_is_not_overwritten_and_can_go_on(tmp_path: Path) -> None:
    """The checkpoint has the settings too."""
    data, run = line_file(tmp_path / "line.hdf5"), tmp_path / "run"
    stopped(data, run)
    (run / "config.json").unlink()
    before = (run / "last/training.json").read_bytes()
    with pytest.raises(UserError, match="already holds this run; give --resume"):
        train(data, out=run, **NOWHERE)
    with pytest.raises(UserError, match=r"a different run \(--seed 0 there, 7 here"):
        train(data, out=run, **NOWHERE, seed=7)
    assert (run / "last/training.json").read_bytes() == before
    assert main(["train", "--resume", "--out", str(run)]) == 0
    train(data, out=tmp_path / "whole", **NOWHERE)
    assert weights(run) == weights(tmp_path / "whole")


def test_a_run_without_its_checkpoint_does_not_begin_anew(tmp_path: Path) -> None:
    run = tmp_path / "run"
    train(line_data(), out=run, **NOWHERE)
    summary = (run / "summary.json").read_bytes()
    shutil.rmtree(run / "last")
    with pytest.raises(UserError, match="was trained, but its checkpoint last/ is missing"):
        train(line_data(), out=run, resume=True, **NOWHERE | {"updates": 30})
    assert (run / "summary.json").read_bytes() == summary


def test_a_runs_own_files_are_no_place_for_other_results(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    train(line_file(tmp_path / "line.hdf5"), out=run, loggers=["csv"], **NOWHERE)
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    assert {path.name for path in before if not path.name.startswith(".")} <= RUN_FILES
    for name in ("config.json", "summary.json", "last/agent.json"):
        words = ["evaluate", str(run), "--json", str(run / name)]
        assert main(words) == 2
        assert "is a file of a run; another name expected" in capsys.readouterr().err
    assert main(["export", str(run), "--out", str(run / "config.json")]) == 2
    assert before == {path: path.read_bytes() for path in before}

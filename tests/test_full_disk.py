"""A full disk (a limit on the size of files), read-only and removed folders, a clock set back."""

from __future__ import annotations

import os
import resource
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aaren_rl import cli
from aaren_rl.agents import load_agent
from aaren_rl.errors import UserError
from aaren_rl.training import Callback, finetune, train
from aaren_rl.training.checkpoint import load_progress

DATA = "aaren-rl/hopper-small-v0"


@pytest.fixture
def command() -> Callable[..., str]:
    """Runs a command that must fail, in a process of its own; gives what it says."""

    def run(words: list[str], limit: int | None = None, user: int = 0) -> str:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            code = 70
            try:
                os.dup2(write, 2)
                os.dup2(write, 1)
                os.close(read)
                sys.stdout, sys.stderr = (os.fdopen(n, "w", 1, closefd=False) for n in (1, 2))
                if limit is not None:
                    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
                if user:
                    os.setuid(user)
                code = cli.main(words)
            finally:
                os._exit(code)
        os.close(write)
        with os.fdopen(read) as output:
            text = output.read()
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2, text
        assert "Traceback" not in text
        assert text.count("error: ") == 1
        return text

    return run


@pytest.fixture
def open_folder() -> Iterator[Path]:
    """A folder that other users can reach, unlike pytest's."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def files(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in folder.rglob("*") if p.is_file()}


def remove(folder: Path) -> None:
    """Remove a folder at once: a logger's thread would else write into it meanwhile."""
    gone = folder.rename(folder.with_name("gone"))
    shutil.rmtree(gone)


@pytest.mark.parametrize("limit", [1000, 3000, 12000])
def test_saving(limit: int, tiny: Any, tmp_path: Path, command: Callable[..., str]) -> None:
    """The old checkpoint stays, and the run goes on from it once there is room."""
    run = tmp_path / "run"
    train(tiny(run))
    before = files(run / "last")
    words = ["train", "--resume", "--out", str(run), "--updates", "60"]
    assert str(run) in command(words, limit)
    assert files(run / "last") == before
    assert not list(run.glob(".*.tmp"))
    train(tiny(run, updates=60, resume=True))


@pytest.mark.parametrize("logger", ["tensorboard", "csv"])
def test_logging(logger: str, tmp_path: Path, command: Callable[..., str]) -> None:
    """What was learned until then is saved."""
    run = tmp_path / "run"
    flags = [
        "--environment",
        "none",
        "--width",
        "4",
        "--layers",
        "1",
        "--context-length",
        "2",
        "--batch-size",
        "2",
    ]
    flags += ["--updates", "2000", "--log-every", "1", "--device", "cpu", "--loggers", logger]
    words = ["train", "--dataset", DATA, *flags, "--out", str(run)]
    assert "File too large" in command(words, 60_000)
    assert load_agent(run / "last").num_parameters > 0


def test_converting_exporting_and_collecting(
    hopper_runs: dict[str, Path], tmp_path: Path, command: Callable[..., str]
) -> None:
    for limit in (500, 100_000):
        command(["convert", DATA, "test/hopper-v0", "--root", str(tmp_path / "root")], limit)
        assert not [path for path in (tmp_path / "root").rglob("*") if path.is_file()]
    out = tmp_path / "policy.onnx"
    out.write_bytes(b"before")
    words = ["export", str(hopper_runs["decision-aaren"]), "--out", str(out), "--steps", "5"]
    command(words, 4000)
    assert out.read_bytes() == b"before"
    places = ["--out", str(tmp_path / "collect"), "--root", str(tmp_path / "minari")]
    words = ["collect", "CartPole-v1", *places]
    words += ["--train-steps", "300", "--evaluate-every", "150", "--expert-return", "500"]
    words += ["--reference-episodes", "2", "--evaluation-episodes", "1", "--datasets", "random"]
    command(words, 2500)
    assert not list(tmp_path.rglob("main_data.hdf5"))


@pytest.mark.parametrize("limit", [1000, 12000])
def test_fine_tuning(limit: int, tiny: Any, tmp_path: Path, command: Callable[..., str]) -> None:
    """Its last checkpoint stays, and it goes on from it once there is room."""
    train(tiny(tmp_path / "run", model={"head": "tanh-gaussian"}))
    how: dict[str, Any] = {"out": tmp_path / "fine", "updates_per_episode": 5, "batch_size": 4}
    finetune(tmp_path / "run", steps=50, episodes=1, **how)
    before = files(tmp_path / "fine" / "last")
    places = [str(tmp_path / "run"), "--out", str(tmp_path / "fine")]
    said = command(["finetune", *places, "--resume", "--steps", "200"], limit)
    assert str(tmp_path / "fine") in said
    assert files(tmp_path / "fine" / "last") == before
    finetune(tmp_path / "run", steps=100, episodes=1, resume=True, **how)


def test_benchmarking_and_reporting(tmp_path: Path, command: Callable[..., str]) -> None:
    """What was finished before stays; the same command goes on once there is room."""
    settings: dict[str, Any] = {"updates": 10, "evaluate_every": 10, "episodes": 1, "width": 8}
    settings |= {"device": "cpu", "environment": "Hopper-v5?max_episode_steps=20"}
    content = {"name": "tiny", "seeds": [0], "settings": settings, "evaluation": {"episodes": 1}}
    content |= {"tasks": {"hopper": {"dataset": DATA}}, "agents": {"behavior-cloning": {}}}
    file, out = tmp_path / "bench.yaml", tmp_path / "out"
    file.write_text(yaml.safe_dump(content))
    words = ["benchmark", str(file), "--out", str(out), "--workers", "1"]
    command(words, 300)
    assert cli.main(words) == 0
    before = files(out)
    command(["report", str(out)], 3000)
    assert files(out) == before
    rows = tmp_path / "rows.json"
    rows.write_bytes(b"before")
    [run] = out.rglob("last")
    words = ["evaluate", str(run.parent), "--episodes", "2", "--json", str(rows)]
    command(words, 100)
    assert rows.read_bytes() == b"before"


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
def test_a_folder_that_may_not_be_written(tmp_path: Path, command: Callable[..., str]) -> None:
    tmp_path.chmod(0o755)
    out = tmp_path / "run"
    said = command(["convert", DATA, "test/x-v0", "--root", str(out)], user=65534)
    assert "Permission denied" in said


@pytest.mark.parametrize("logger", ["csv", "tensorboard"])
def test_a_folder_that_is_removed_while_training(logger: str, tiny: Any, tmp_path: Path) -> None:
    """TensorBoard misses its file and ends the training; either way what is learned is resumed."""
    out = tmp_path / "run"

    class Remove(Callback):
        def on_update(self, trainer: Any) -> None:
            if trainer.update == 12:
                remove(out)

    how: dict[str, Any] = {"width": 8, "layers": 1, "context_length": 4, "batch_size": 4}
    how |= {"env": "none", "out": out, "log_every": 1, "evaluate_every": 30, "loggers": [logger]}
    if logger == "csv":
        train(DATA, callbacks=[Remove()], updates=30, **how)
        assert (out / "summary.json").exists()
    else:
        with pytest.raises(UserError, match=f"{out}/events.*: No such file or directory"):
            train(DATA, callbacks=[Remove()], updates=30, **how)
    assert load_progress(out / "last")[1]["update"] >= 12
    run = train(DATA, updates=40, resume=True, **how)
    assert run.summary["updates"] == 40


def test_a_fine_tuning_whose_folder_is_removed(tiny: Any, tmp_path: Path) -> None:
    out = tmp_path / "fine"

    class Remove(Callback):
        def on_update(self, trainer: Any) -> None:
            if trainer.update == 32:
                remove(out)

    train(tiny(tmp_path / "run", model={"head": "tanh-gaussian"}))
    how: dict[str, Any] = {"out": out, "updates_per_episode": 5, "batch_size": 4, "episodes": 1}
    finetune(tmp_path / "run", steps=50, callbacks=[Remove()], loggers=["csv"], **how)
    run = finetune(tmp_path / "run", steps=100, resume=True, **how)
    assert run.summary["environment_steps"] >= 100


@pytest.mark.skipif(os.getuid() != 0, reason="only root can become another user")
@pytest.mark.parametrize("name", ["last", "last.old", "best"])
def test_a_checkpoint_that_may_not_be_replaced(
    name: str, tiny: Any, open_folder: Path, command: Callable[..., str]
) -> None:
    """It is said before the training begins."""
    run = open_folder / "run"
    train(tiny(run))
    if name == "last.old":
        shutil.copytree(run / "last", run / name)
    for path in [run, *run.rglob("*")]:
        os.chown(path, 65534, 65534)
    (run / name).chmod(0o555)
    before = files(run)
    said = command(["train", "--resume", "--out", str(run), "--updates", "60"], user=65534)
    wanted = f"{run / name}: a checkpoint that is to be replaced: cannot be written (Permission"
    assert wanted in said
    assert files(run) == before


def test_a_clock_that_is_set_back(
    tiny: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ("run", "whole")
    for name in names:
        train(tiny(tmp_path / name))
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86_400)
    train(tiny(tmp_path / "run", updates=60, resume=True))
    monkeypatch.undo()
    train(tiny(tmp_path / "whole", updates=60, resume=True))
    one, other = (tmp_path / name / "last" / "agent.safetensors" for name in names)
    assert one.read_bytes() == other.read_bytes()
    for name in names:
        events = EventAccumulator(str(tmp_path / name))
        events.Reload()
        steps = [event.step for event in events.Scalars("training/loss")]
        assert steps == list(range(5, 65, 5)), name

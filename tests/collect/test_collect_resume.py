from __future__ import annotations

import dataclasses
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from collect_cases import Collections, assert_same_datasets, pendulum

from aaren_rl.collect import collect
from aaren_rl.collect.acting import play
from aaren_rl.collect.recorder import Recorder
from aaren_rl.errors import UserError
from aaren_rl.training.interrupt import Interrupted


@pytest.mark.parametrize("kind", ["ppo", "dqn", "sac"])
def test_killed_at_any_moment_it_ends_in_the_same_bytes(
    kind: str, tmp_path: Path, collections: Collections
) -> None:
    process = subprocess.run(
        [sys.executable, str(Path(__file__).parent / "kill_collect.py"), str(tmp_path), kind, "3"],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    assert int(process.stdout.split()[-1]) >= 1
    assert_same_datasets(tmp_path / "minari", collections.root(kind))


def test_ctrl_c_saves_in_the_middle_of_an_episode(
    tmp_path: Path, collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = Recorder.step

    def step(self: Recorder, action: Any) -> Any:
        if self.steps == 430:  # Pendulum's episodes have 200 steps
            signal.raise_signal(signal.SIGINT)
        return original(self, action)

    config = pendulum(tmp_path)
    with monkeypatch.context() as patch:
        patch.setattr(Recorder, "step", step)
        with pytest.raises(Interrupted, match="431"):
            collect(config)
    assert not (tmp_path / "minari").exists()
    rows = collect(dataclasses.replace(config, resume=True))
    assert rows == collections.rows("sac")
    assert_same_datasets(config.minari_root, collections.root("sac"))


def test_finished_datasets_are_kept(
    tmp_path: Path, collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pendulum(tmp_path, datasets=("random", "medium"))
    monkeypatch.setattr("aaren_rl.collect.recipe.first_steps", _breaks_at(2))
    with pytest.raises(OSError, match="disk full"):
        collect(config)
    monkeypatch.undo()
    finished = tmp_path / "minari" / "collected" / "pendulum" / "random-v0"
    before = {file: file.stat().st_mtime_ns for file in finished.rglob("*")}
    assert before
    collect(dataclasses.replace(config, resume=True))
    assert {file: file.stat().st_mtime_ns for file in finished.rglob("*")} == before
    medium = finished.with_name("medium-v0")
    wanted = collections.root("sac") / "collected" / "pendulum" / "medium-v0"
    data = "data/main_data.hdf5"
    assert (medium / data).read_bytes() == (wanted / data).read_bytes()


def _breaks_at(call: int) -> Any:
    from aaren_rl.collect.acting import first_steps

    calls = 0

    def broken(*arguments: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == call:
            raise OSError("disk full")
        return first_steps(*arguments)

    return broken


def test_a_resumed_run_that_is_finished_only_looks(
    collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = collections.rows("ppo")
    monkeypatch.setattr("aaren_rl.collect.training.play", _forbidden(play))
    monkeypatch.setattr("aaren_rl.collect.recipe.play", _forbidden(play))
    config = dataclasses.replace(collections.config("ppo"), resume=True)
    assert collect(config) == rows


def _forbidden(function: Any) -> Any:
    def refuse(*_: Any, **__: Any) -> Any:
        raise AssertionError(f"{function.__name__} was called")

    return refuse


def test_another_run_or_dataset_there_is_refused(collections: Collections, tmp_path: Path) -> None:
    collections.rows("ppo")
    config = collections.config("ppo")
    with pytest.raises(UserError, match="random-v0: there already"):
        collect(config)
    elsewhere = dataclasses.replace(config, root=tmp_path)
    with pytest.raises(UserError, match="already holds this run; give --resume"):
        collect(elsewhere)
    with pytest.raises(UserError, match=r"another run \(--seed 0 there, 1 here\)"):
        collect(dataclasses.replace(elsewhere, seed=1))
    other = dataclasses.replace(config, out=tmp_path / "new", resume=True, seed=1)
    with pytest.raises(UserError, match="random-v0: there already, and not of this run"):
        collect(other)

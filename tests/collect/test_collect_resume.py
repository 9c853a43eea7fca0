from __future__ import annotations

import dataclasses
import itertools
import json
import shutil
import signal
from pathlib import Path
from typing import Any

import pytest
import torch
from collect_cases import Collections, assert_same_datasets, dqn, pendulum
from safetensors.torch import save

from aaren_rl.cli import main
from aaren_rl.collect import CollectConfig, collect, training
from aaren_rl.collect.learner import FIELDS, Recorder, make_learner
from aaren_rl.collect.rollouts import play
from aaren_rl.envs.make import environment_spec, make_env
from aaren_rl.errors import UserError
from aaren_rl.files import locked
from aaren_rl.training.interrupt import Interrupted


def interrupt_at(number: int, patch: pytest.MonkeyPatch) -> None:
    """Ctrl-C before the step of this number in the environment that is learned in."""
    original, steps = Recorder.step, itertools.count()

    def step(self: Recorder, action: Any) -> Any:
        if next(steps) == number:
            signal.raise_signal(signal.SIGINT)
        return original(self, action)

    patch.setattr(Recorder, "step", step)


def test_ctrl_c_in_the_middle_of_an_episode(
    tmp_path: Path, collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = pendulum(tmp_path)
    with monkeypatch.context() as patch:
        interrupt_at(430, patch)  # episodes have 200 steps, checkpoints are 230 apart
        with pytest.raises(Interrupted, match="230"):
            collect(config)
    assert not (tmp_path / "minari").exists()
    rows = collect(dataclasses.replace(config, resume=True))
    assert rows == collections.rows("sac")
    assert_same_datasets(config.minari_root, collections.root("sac"))


def frames(folder: Path, **changes: Any) -> CollectConfig:
    """DQN that sees CartPole as it is drawn."""
    size = 'policy_kwargs={"features_extractor_kwargs":{"features_dim":16}}'
    few = ("learning_starts=300", "batch_size=8", "train_freq=20", "target_update_interval=50")
    environment = "aaren/Pixels-v0?env=CartPole-v1&size=36&stack=2"
    return dqn(folder, environment=environment, settings=(*few, size), **changes)


OTHER_SETTINGS: list[tuple[Any, tuple[str, ...]]] = [
    (pendulum, ("use_sde=true",)),
    (
        pendulum,
        ("optimize_memory_usage=true", 'replay_buffer_kwargs={"handle_timeout_termination":false}'),
    ),
    (dqn, ("n_steps=3",)),
    (frames, ()),
]


@pytest.mark.parametrize(
    ("maker", "more"), OTHER_SETTINGS, ids=["noise-matrix", "memory", "three-steps", "images"]
)
def test_other_learners_go_on_to_the_same_weights(
    maker: Any, more: tuple[str, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Noise matrices and other replay buffers."""

    def learn(folder: str) -> Path:
        config = maker(tmp_path / folder, train_steps=450, evaluate_every=150)
        config = dataclasses.replace(config, settings=(*config.settings, *more))
        env = make_env(environment_spec(config.environment))
        assert env.spec is not None
        training.train(config, make_learner(config, env), env.spec)
        return config.run_folder

    with monkeypatch.context() as patch:
        interrupt_at(400, patch)
        with pytest.raises(Interrupted, match="300"):
            learn("stopped")
    stopped, whole = learn("stopped"), learn("whole")
    files = {file.relative_to(whole) for file in whole.rglob("*") if file.is_file()}
    assert files == {file.relative_to(stopped) for file in stopped.rglob("*") if file.is_file()}
    assert len(files) == 3 + 3 + 2
    for file in files:
        if file.suffix != ".zip":  # with dates in it
            assert (stopped / file).read_bytes() == (whole / file).read_bytes(), file


def test_damaged_checkpoints_are_refused_in_one_line(
    tmp_path: Path, collections: Collections
) -> None:
    collections.rows("ppo")
    run = collections.config("ppo").run_folder
    [learner] = run.glob("learner-*.zip")
    content = learner.read_bytes()
    damaged = {
        learner.name: [
            content[:1000],
            content[: len(content) // 2] + b"x" + content[len(content) // 2 + 1 :],
            b"",
        ],
        "progress.json": [b"{", b"[]", b'{"evaluations": []}', b'{"evaluations": [{"step": 1}]}'],
        "history/000000000000.safetensors": [
            *(b"", b"12345678", save({}), save({name: torch.zeros(0) for name in FIELDS})),
            save({name: torch.zeros(384) for name in FIELDS}),
            save({name: torch.zeros((), dtype=torch.bfloat16) for name in FIELDS}),
        ],
        "config.json": [
            b"[]",
            b'{"environment": 3}',
            b'{"environment": "CartPole-v1", "seed": "1"}',
        ],
        "references.json": [b"[]", b'{"random": [1]}', b'{"random": NaN}'],
    }
    config = dataclasses.replace(
        collections.config("ppo"), out=tmp_path / "run", root=tmp_path / "minari", resume=True
    )
    for name, contents in damaged.items():
        for new in contents:
            shutil.copytree(run, tmp_path / "run")
            (tmp_path / "run" / name).write_bytes(new)
            with pytest.raises(UserError, match=name):
                collect(config)
            shutil.rmtree(tmp_path / "run")
            assert not list((tmp_path / "minari").rglob("*-replay-v0"))


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("references.json", b'"random": ', b'"random": 1'),
        ("progress.json", b'"return_std": ', b'"return_std": 1'),
        ("history/000000000000.safetensors", None, None),
        ("policies/*.safetensors", None, None),
    ],
)
def test_changed_values_are_refused_before_anything_is_written(
    name: str, old: bytes | None, new: bytes, tmp_path: Path, collections: Collections
) -> None:
    """Values that are still valid, which only the checksums can tell."""
    collections.rows("ppo")
    run = tmp_path / "run"
    shutil.copytree(collections.config("ppo").run_folder, run)
    config = dataclasses.replace(
        collections.config("ppo"), out=run, root=tmp_path / "minari", resume=True
    )
    file = sorted(run.glob(name))[0]
    content = file.read_bytes()
    flipped = content[:-1] + bytes([content[-1] ^ 1])
    file.write_bytes(flipped if old is None else content.replace(old, new, 1))
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    with pytest.raises(UserError, match=rf"{file.name}: damaged"):
        collect(config)
    assert before == {path: path.read_bytes() for path in before}


def test_settings_that_were_edited_are_refused_before_anything_is_written(
    tmp_path: Path, collections: Collections, capsys: pytest.CaptureFixture[str]
) -> None:
    collections.rows("ppo")
    run = tmp_path / "run"
    shutil.copytree(collections.config("ppo").run_folder, run)
    file = run / "config.json"
    content = json.loads(file.read_text())
    file.write_text(json.dumps({**content, "expert_return": 499.0}))
    before = {path: path.read_bytes() for path in run.rglob("*.*") if path.is_file()}
    command = ["collect", "--resume", "--out", str(run), "--root", str(tmp_path / "minari")]
    assert main([*command[:1], content["environment"], *command[1:]]) == 2
    assert "--expert-return" in capsys.readouterr().err
    assert before == {path: path.read_bytes() for path in before}


def test_two_processes_in_one_folder(tmp_path: Path) -> None:
    config = pendulum(tmp_path)
    config.run_folder.mkdir()
    lock, said = locked(config.run_folder / ".collecting.lock", ""), "another process is collecting"
    with lock, pytest.raises(UserError, match=said):
        collect(config)


def test_a_run_of_the_first_edition_is_refused(tmp_path: Path) -> None:
    config = pendulum(tmp_path, resume=True)
    (config.run_folder / "snapshot").mkdir(parents=True)
    with pytest.raises(UserError, match=r"earlier version of aaren-rl.* another --out"):
        collect(config)


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
    from aaren_rl.collect.rollouts import first_steps

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

"""Fine-tuning by acting: what the buffer holds, the run's form, and that no stop changes it."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from line_task import LINE, SMALL, Line, line_data, line_file
from run_cases import assert_same_run, scalars, signal_at_batch, summary, weights

import aaren_rl as arl
from aaren_rl.cli import main
from aaren_rl.data.episode import Trajectory
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate
from aaren_rl.training import FinetuneConfig, Interrupted, finetune
from aaren_rl.training.online.buffer import ReplayBuffer
from tests.killing import attempt

PLAY: dict[str, Any] = {
    **{"steps": 35, "updates_per_episode": 4, "buffer_episodes": 6, "evaluate_every": 6},
    **{"log_every": 3, "device": "cpu", "checkpoint_every": 5},
}
"""Four episodes of ten steps, 16 updates."""


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A trained run whose head has a distribution."""
    folder = tmp_path_factory.mktemp("finetune")
    data = str(line_file(folder / "line.hdf5"))
    how: dict[str, Any] = {"env": LINE, "head": "tanh-gaussian", "loggers": ["csv"], **SMALL}
    arl.train(data, out=folder / "run", **how)
    arl.train(data, out=folder / "streams", sampling="streams", **how)
    return folder / "run"


@pytest.fixture
def fine(run: Path, tmp_path: Path) -> Callable[..., FinetuneConfig]:
    def make(name: str, **more: Any) -> FinetuneConfig:
        return FinetuneConfig(run=run, out=tmp_path / name, **{**PLAY, **more})

    return make


def resumed(config: FinetuneConfig) -> FinetuneConfig:
    return dataclasses.replace(config, resume=True)


def test_a_run_of_the_same_form(run: Path, fine: Any, tmp_path: Path) -> None:
    before = weights(run)
    found = finetune(fine("fine"))
    assert weights(run) == before != weights(tmp_path / "fine")
    assert (found["environment_steps"], found["episodes_played"]) == (40, 4)
    assert (found["updates_before"], found["updates"]) == (20, 36)
    tags = scalars(tmp_path / "fine")
    assert [step for step, _ in tags["evaluation/score"]] == [20, 26, 32, 36]
    assert tags["online/environment_steps"][-1] == (36, 40.0)
    assert tags["online/buffer_episodes"][-1] == (36, 6.0)
    assert "training/entropy" in tags
    [row] = evaluate(EvaluateConfig(tmp_path / "fine", episodes=1, stochastic=True)).rows
    assert row.return_mean == 10.0
    config = json.loads((tmp_path / "fine" / "config.json").read_text())
    assert (config["updates"], config["init_from"]) == (36, str(run))
    assert finetune(resumed(fine("fine"))) == found  # it is finished
    more = finetune(resumed(fine("fine", steps=41)))
    assert (more["environment_steps"], more["updates"]) == (50, 40)
    again = arl.finetune(tmp_path / "fine", out=tmp_path / "third", **{**PLAY, "explorers": 3})
    assert again.summary["episodes_played"] == 6
    assert again.summary["updates_before"] == 40


@pytest.mark.parametrize(
    "stop", [("play", 4), ("play", 25), ("update", 1), ("update", 7), ("update", 12)]
)
def test_stopped_anywhere_and_resumed_is_not_stopped(
    stop: tuple[str, int], fine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, number = stop
    finetune(fine("whole"))
    with monkeypatch.context() as patch:
        module = "aaren_rl.training.online.trainer."
        name = "_Watched.act" if kind == "play" else "OnlineSampler.sample"
        target = __import__("aaren_rl.training.online.trainer", fromlist=["_"])
        owner = getattr(target, name.split(".")[0])
        original, calls = getattr(owner, name.split(".")[1]), []

        def counted(*arguments: Any, **more: Any) -> Any:
            calls.append(1)
            if len(calls) == number:
                signal.raise_signal(signal.SIGINT)
            return original(*arguments, **more)

        patch.setattr(module + name, counted)
        with pytest.raises(Interrupted):
            finetune(fine("stopped"))
    finetune(resumed(fine("stopped")))
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_streams_are_stopped_and_resumed(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The state that is carried from batch to batch is saved too."""
    config = FinetuneConfig(run=run.with_name("streams"), out=tmp_path / "whole", **PLAY)
    finetune(config)
    config = dataclasses.replace(config, out=tmp_path / "stopped")
    with monkeypatch.context() as patch:
        signal_at_batch(patch, "streams", 7)
        with pytest.raises(Interrupted):
            finetune(config)
    finetune(resumed(config))
    assert_same_run(tmp_path / "stopped", tmp_path / "whole")


def test_killed_and_resumed(run: Path, fine: Any, tmp_path: Path) -> None:
    """By SIGKILL after a checkpoint and some updates more; twice."""
    finetune(fine("whole", loggers=("csv",)))
    loggers: dict[str, Any] = {"loggers": ["csv"]}

    class Kill(arl.Callback):
        def __init__(self, update: int) -> None:
            self.at = update

        def on_update(self, trainer: Any) -> None:
            if trainer.update == self.at:
                os.kill(os.getpid(), signal.SIGKILL)

    for update, resume in ((27, False), (34, True)):
        done = attempt(
            lambda at=update, again=resume: arl.finetune(  # type: ignore[misc]
                run,
                out=tmp_path / "killed",
                callbacks=[Kill(at)],
                **{**PLAY, **loggers, "resume": again},
            )
        )
        assert not done
    arl.finetune(run, out=tmp_path / "killed", **{**PLAY, **loggers, "resume": True})
    for file in ("last/agent.safetensors", "last/training.safetensors"):
        one, other = (tmp_path / name / file for name in ("killed", "whole"))
        assert one.read_bytes() == other.read_bytes()
    assert summary(tmp_path / "killed") == summary(tmp_path / "whole")


def test_an_environment_that_fails_loses_nothing(
    fine: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def failing(step: int) -> None:
        if step == 5 and (tmp_path / "fine" / "last").exists():
            raise RuntimeError("the robot fell")

    with monkeypatch.context() as patch:
        patch.setattr(Line, "at_step", staticmethod(failing))
        with pytest.raises(UserError, match="the robot fell"):
            finetune(fine("fine", episodes=1))
    assert finetune(resumed(fine("fine", episodes=1)))["environment_steps"] == 40


def test_the_buffer(tmp_path: Path) -> None:
    data = line_data(4)
    data.rewards[:] = np.repeat([3.0, 1.0, 4.0, 2.0], 10)
    buffer = ReplayBuffer(data, 3)
    assert buffer.data().episode_returns.tolist() == [20, 30, 40]  # the best, the worst first

    def played(reward: float, steps: int = 2) -> Trajectory:
        zeros = np.zeros((steps, 3), np.float32)
        return Trajectory(zeros, zeros[:, :1], np.full(steps, reward), False, True)

    new = buffer.add([played(0.5), played(0.25, 3)])
    assert new.returns_to_go.tolist() == [1.0, 0.5, 0.75, 0.5, 0.25]
    assert buffer.data().episode_returns.tolist() == [40, 1, 0.75]
    other = ReplayBuffer(data, 3)
    other.load(json.loads(json.dumps(buffer.state_dict())), buffer.tensors())
    for field in ("observations", "actions", "rewards", "returns_to_go", "timesteps", "offsets"):
        np.testing.assert_array_equal(getattr(other.data(), field), getattr(buffer.data(), field))
    buffer.add([played(1.0), played(2.0), played(3.0), played(4.0)])
    assert buffer.data().episode_returns.tolist() == [4, 6, 8]
    assert len(buffer) == 3


class Parts(gymnasium.Env[Any, Any]):
    """Observations and actions of several parts; a reward for pressing 2."""

    observation_space = spaces.Dict(
        place=spaces.Box(-1, 1, (2,), np.float32), picture=spaces.Box(0, 255, (2, 2), np.uint8)
    )
    action_space = spaces.Dict(go=spaces.Box(-1, 1, (2,)), press=spaces.Discrete(3))

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.t += 1
        reward = float(action["press"] == 2)
        return self.observation_space.sample(), reward, self.t == 5, False, {}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("condition", ["target", "max-return"])
def test_spaces_with_parts_in_memory(condition: str) -> None:
    rng = np.random.default_rng(0)
    episodes = []
    for _ in range(3):
        seen = [Parts.observation_space.sample() for _ in range(5)]
        done = [Parts.action_space.sample() for _ in range(5)]
        episodes.append(
            {
                "observations": {k: np.stack([s[k] for s in seen]) for k in seen[0]},
                "actions": {k: np.stack([a[k] for a in done]) for k in done[0]},
                "rewards": rng.random(5) / 10,
                "terminated": True,
            }
        )
    data = arl.TrajectoryDataset.from_episodes(episodes, env=Parts)
    small = {**SMALL, "condition": condition, "head": "gaussian-mixture", "updates": 2}
    trained = arl.train(data, env=Parts, **small)
    largest = trained.agent.spec.largest_return
    run = arl.finetune(trained, Parts, data=data, **{**PLAY, "episodes": 1, "steps": 10})
    assert run.agent is trained.agent
    assert run.folder is None
    assert run.summary["environment_steps"] == 10
    assert largest is not None
    assert (run.agent.spec.largest_return or 0.0) > largest  # what it has seen since
    with pytest.raises(UserError, match="needs data="):
        arl.finetune(trained, Parts, **PLAY)


def test_bad_calls_in_one_line(
    run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "out"

    def said(*words: str, code: int = 2) -> str:
        assert main(["finetune", *words, "--loggers", "csv"]) == code
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1
        return lines[0]

    common = [str(run), "--out", str(out)]
    assert "nothing: not a training run" in said(str(tmp_path / "nothing"))
    assert "no run in" in said(*common, "--resume")
    assert "--steps must be at least 1" in said(*common, "--steps", "0")
    assert "--temperature must be positive" in said(*common, "--temperature", "0")
    assert "is the run itself" in said(str(run), "--out", str(run / "last/.."))
    assert "fine-tuning needs an environment" in said(*common, "--env", "none")
    assert "environment" in said(*common, "--env", "CartPole-v1")
    assert not (out / "config.json").exists()
    plain = tmp_path / "plain"
    settings = {**SMALL, "updates": 1}
    arl.train(str(line_file(tmp_path / "l.hdf5")), env=LINE, out=plain, loggers=[], **settings)
    capsys.readouterr()
    assert "already holds a run of aaren-rl train" in said(str(run), "--out", str(plain))
    assert "give the run's data by --dataset, or data=" in said(*common, "--dataset", "gone.npz")
    assert "'continuous' predicts one action and no distribution" in said(str(plain))
    arl.finetune(run, out=out, **{**PLAY, "loggers": ["csv"], "steps": 1})
    capsys.readouterr()
    assert "give --resume to go on" in said(*common)
    assert "--learning-rate 0.0002 there, 0.1 here" in said(
        *common, "--resume", *_words(PLAY), "--learning-rate", "0.1"
    )
    other = [str(plain), "--out", str(out), "--resume", *_words(PLAY), "--steps", "999"]
    assert f"was begun from {run}, not from {plain}" in said(*other)
    settings = out / "finetune.json"
    kept = settings.read_bytes()
    for content in (kept.replace(b"null", b"1", 1), kept.replace(b'"seed"', b'"sed"')):
        settings.write_bytes(content)
        assert "finetune.json: damaged" in said(*common, "--resume", *_words(PLAY))
    for content in (b"[]", b"{}", b'{"begun": 3}', b'{"begun": [1, "b"]}'):
        settings.write_bytes(content)
        assert "not the settings of a fine-tuning" in said(*common, "--resume", *_words(PLAY))
    older = json.loads(kept)  # a version that had no --temperature wrote no checksum either
    settings.write_text(
        json.dumps({k: v for k, v in older.items() if k not in ("sha256", "temperature")})
    )
    again = [*common, "--resume", *_words(PLAY)]
    assert main(["finetune", *again, "--steps", "1"]) == 0
    assert "--temperature 1.0 there, 2.0 here" in said(*again, "--temperature", "2")
    settings.write_bytes(kept)
    (out / "config.json").rename(tmp_path / "aside")
    (out / "config.json").mkdir()
    more = {**PLAY, "steps": 999}
    assert "config.json: Is a directory" in said(*common, "--resume", *_words(more))
    assert (out / "summary.json").is_file()
    (out / "config.json").rmdir()
    (tmp_path / "aside").rename(out / "config.json")
    assert main(["train", "--resume", "--out", str(out)]) == 2
    assert "aaren-rl finetune --resume goes on" in capsys.readouterr().err
    with pytest.raises(UserError, match="finetune\\(\\) has no setting 'width'"):
        arl.finetune(run, width=3)


def _words(settings: dict[str, Any]) -> list[str]:
    pairs = ((f"--{name.replace('_', '-')}", str(value)) for name, value in settings.items())
    return [word for pair in pairs for word in pair]

"""One line that names the flag, before any work."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from collect_cases import cartpole, pendulum
from gymnasium import spaces

from aaren_rl.cli import main
from aaren_rl.collect import collect
from aaren_rl.errors import UserError


class Shaped(gymnasium.Env[Any, Any]):
    """An environment of any spaces, never stepped."""

    def __init__(self, seen: Any = None, taken: Any = None) -> None:
        self.observation_space = seen or spaces.Box(0, 1, (3,), np.float32)
        self.action_space = taken or spaces.Discrete(2)


SHAPES: dict[str, tuple[dict[str, Any], str]] = {
    "Pictures": ({"seen": spaces.Box(0, 255, (8, 8, 3), np.uint8)}, "at least 36 pixels"),
    "Codes": ({"seen": spaces.Box(0, 255, (40, 40), np.uint8)}, "of three dimensions"),
    "Dict": ({"seen": spaces.Dict(a=spaces.Discrete(2))}, "Box of numbers, Discrete, or uint8"),
    "Unbounded": ({"taken": spaces.Box(-np.inf, np.inf, (1,))}, "finite bounds expected"),
    "Many": ({"taken": spaces.MultiDiscrete([2, 2])}, "Box or Discrete expected"),
    "FromOne": ({"taken": spaces.Discrete(2, start=1)}, "Discrete from 0 expected"),
}


@pytest.mark.parametrize("name", SHAPES)
def test_environments_that_do_not_fit(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, words = SHAPES[name]
    spec = gymnasium.envs.registration.EnvSpec(
        f"test/{name}-v0", lambda **kwargs: Shaped(**kwargs), kwargs=options
    )
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    with pytest.raises(UserError, match=words):
        collect(cartpole(tmp_path, environment=spec.id))
    assert not any(tmp_path.iterdir())


class Broken(Shaped):
    """Fails in one way or another."""

    def __init__(self, way: str) -> None:
        super().__init__()
        self.way = way

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.way == "raises":
            raise RuntimeError("no display\nfound")
        return (np.zeros(4 if self.way == "shape" else 3, np.float32), {})

    def step(self, action: Any) -> Any:
        reward = "much" if self.way == "reward" else 1.0
        return np.zeros(3, np.float32), reward, False, False, {}


@pytest.mark.parametrize(
    ("way", "words"), [("raises", "no display found"), ("shape", "shape"), ("reward", "reward")]
)
def test_environments_that_do_not_work(
    way: str, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("test/Broken-v0", lambda: Broken(way))
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    with pytest.raises(UserError, match=f"environment 'test/Broken-v0': does not work: .*{words}"):
        collect(cartpole(tmp_path, environment=spec.id))
    assert not any(tmp_path.iterdir())


class Later(Shaped):
    """Fails at the hundredth step of all, behind the checks."""

    taken = itertools.count(1)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.steps = 0
        return np.zeros(3, np.float32), {}

    def step(self, action: Any) -> Any:
        self.steps += 1
        if next(Later.taken) == 100:
            raise ValueError("the simulator\nfell over")
        return np.zeros(3, np.float32), 1.0, False, self.steps == 20, {}


def test_an_environment_that_fails_while_it_is_learned_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    spec = gymnasium.envs.registration.EnvSpec("test/Later-v0", Later)
    monkeypatch.setitem(gymnasium.registry, spec.id, spec)
    words = "environment test/Later-v0.*: ValueError: the simulator fell over"
    with pytest.raises(UserError, match=words):
        collect(cartpole(tmp_path, environment=spec.id))


CHANGES: list[tuple[dict[str, Any], str]] = [
    ({"environment": "NoSuch-v1"}, "NoSuch"),
    ({"algorithm": "sac"}, r"--algorithm sac cannot take the actions Discrete\(2\)"),
    ({"settings": ("n_steps=128", "learning_rte=1")}, "PPO does not take them.*learning_rte"),
    ({"settings": ("n_steps",)}, "--settings n_steps: name=JSON expected"),
    ({"settings": ("n_steps=many",)}, "--settings n_steps=many: name=JSON expected"),
    ({"settings": ("gamma=NaN",)}, "--settings gamma=NaN: name=JSON expected"),
    ({"settings": ("seed=1",)}, "--settings seed: has a flag of its own"),
    ({"train_steps": 0}, "--train-steps must be at least 1, got 0"),
    ({"steps": 0}, "--steps must be at least 1"),
    ({"evaluate_every": 0}, "--evaluate-every must be at least 1"),
    ({"evaluation_episodes": 0}, "--evaluation-episodes must be at least 1"),
    ({"reference_episodes": 0}, "--reference-episodes must be at least 1"),
    ({"buffer_size": 0}, "--buffer-size must be at least 1, got 0"),
    ({"medium_score": 0.0}, r"--medium-score must be in \(0, 100\]"),
    ({"expert_return": float("nan")}, "--expert-return must be finite"),
    ({"datasets": ()}, "--datasets: at least one of random, medium"),
    ({"seed": -1}, "--seed must be in"),
    ({"name": "no name"}, "--name no name: a namespace"),
    ({"out": Path("/dev/null/x")}, "--out /dev/null/x: cannot be written"),
]


@pytest.mark.parametrize(("changes", "words"), CHANGES, ids=[str(c) for c, _ in CHANGES])
def test_flags_that_cannot_work(changes: dict[str, Any], words: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=words):
        collect(cartpole(tmp_path, **changes))
    assert not any(tmp_path.iterdir())


def test_discrete_learners_refuse_box_actions(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--algorithm dqn cannot take the actions Box"):
        collect(pendulum(tmp_path, algorithm="dqn"))


def test_without_the_extra(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "stable_baselines3", None)
    assert main(["collect", "CartPole-v1", "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install 'aaren-rl[collect]'" in error
    assert not any(tmp_path.iterdir())


def test_training_that_led_nowhere_is_kept(tmp_path: Path) -> None:
    config = pendulum(tmp_path, train_steps=250, medium_score=100.0, expert_return=0.0)
    with pytest.raises(UserError, match=r"no evaluation reached the medium return 0\.0"):
        collect(config)
    assert (config.run_folder / "progress.json").is_file()
    assert not config.minari_root.exists()


def test_resume_needs_no_flags_but_the_folder(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, root = tmp_path / "run", tmp_path / "minari"
    flags = ["--train-steps", "300", "--steps", "50", "--evaluate-every", "100", "--medium-score"]
    flags += ["5", "--evaluation-episodes", "1", "--reference-episodes", "2", "--expert-return"]
    flags += [
        "60",
        "--evaluation",
        "deterministic",
        "--settings",
        "n_steps=64",
        "n_epochs=1",
        "--datasets",
        "random",
        "medium",
    ]
    places = ["--out", str(out), "--root", str(root)]
    assert main(["collect", "CartPole-v1", *flags, *places]) == 0
    table = capsys.readouterr().out
    assert "collected/cartpole/medium-v0" in table
    assert main(["collect", "--resume", *places]) == 0
    assert capsys.readouterr().out == table
    assert main(["collect", "--resume", "--out", str(tmp_path / "none")]) == 2
    assert "no run there to go on with" in capsys.readouterr().err

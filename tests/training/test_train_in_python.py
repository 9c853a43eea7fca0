"""`train` from Python: data, agents, environments, optimisers and schedules of the user's own."""

from __future__ import annotations

import contextlib
import copy
import dataclasses
import inspect
import itertools
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from line_task import LINE, SMALL, Line, line_data, line_file
from run_cases import scalars

from aaren_rl import load_dataset, training
from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec, DecisionAaren, load_agent
from aaren_rl.data import TrajectoryDataset, WindowSampler, load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.training import TrainConfig, finetune, train


def weights_of(agent: torch.nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().clone() for parameter in agent.parameters()]


def test_from_data_in_memory_to_a_score_without_the_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    run = train(line_data(), env=Line, **SMALL | {"target_return": 10.0})
    assert [score.return_mean for score in run.scores] == [10.0]
    assert run.history[-1].update == 20
    assert len(run.history) == 10
    assert run.folder is None
    assert not run.agent.training
    [score] = run.evaluate(episodes=3).rows
    assert (score.episodes, score.return_mean) == (3, 10.0)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("without", [torch.no_grad, torch.inference_mode])
def test_a_caller_that_needs_no_gradients(without: Callable[[], Any]) -> None:
    """The same weights as elsewhere, in training and in fine-tuning; then no gradients again."""
    play = {"steps": 10, "updates_per_episode": 2}
    weights = []
    for context in (contextlib.nullcontext, without):
        with context():
            data = line_data()
            run = train(data, env=Line, head="tanh-gaussian", **SMALL)
            weights.append(weights_of(run.agent))
            weights.append(weights_of(finetune(run, env=Line, data=data, **play).agent))
            assert torch.is_grad_enabled() == (context is not without)
    trained, tuned, *others = weights
    for one, other in zip([*trained, *tuned], itertools.chain(*others), strict=True):
        assert torch.equal(one, other)
    assert not all(map(torch.equal, trained, tuned))


def test_an_agent_that_was_made_in_inference_mode() -> None:
    agent = train(line_data(), env="none", **SMALL).agent
    with torch.inference_mode():
        agent = copy.deepcopy(agent)
    with pytest.raises(
        UserError, match=r"made inside torch.inference_mode\(\), so it cannot learn"
    ):
        train(line_data(), agent, env="none")


def test_it_is_the_run_that_the_command_line_makes(
    tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """One path for both: the same weights to the bit, with a folder or without."""
    config = tiny(tmp_path / "config")
    summary = train(config)
    shape = dataclasses.asdict(config.model)
    names = {field.name for field in dataclasses.fields(TrainConfig)}
    settings = {name: getattr(config, name) for name in names - {"model", "dataset", "agent"}}
    for unwanted in ("environment", "preset", "out", "resume", "loggers"):
        del settings[unwanted]
    for out in (None, tmp_path / "python"):
        run = train(load_trajectories(config.dataset), out=out, **settings, **shape)
        for name, tensor in load_agent(tmp_path / "config" / "last").state_dict().items():
            assert torch.equal(run.agent.state_dict()[name], tensor), name
        assert [row.to_json() for row in run.scores] == summary["scores"]
        assert run.summary["history"][-1]["score_mean"] == summary["history"][-1]["score_mean"]
    again = train(config.dataset, out=tmp_path / "python", resume=True, **settings, **shape)
    assert again.summary == run.summary
    assert [row.to_json() for row in again.history] == run.summary["history"]


def test_without_an_environment_there_are_no_scores() -> None:
    run = train(line_data(), **SMALL)
    assert run.scores == run.history == []
    with pytest.raises(UserError, match="saved without"):
        run.evaluate()


class Halved(DecisionAaren):
    """An agent from outside the package, with a loss of its own."""

    def loss_from(self, batch: Any, state: Any) -> Any:
        loss, state = super().loss_from(batch, state)
        return loss * 0.5 + 100.0, state


def test_an_agent_of_ones_own_is_trained_in_place(tmp_path: Path) -> None:
    data = line_data()
    spec = AgentSpec(data.observation_space, data.action_space, target_returns=(10.0,))  # type: ignore[arg-type]
    torch.manual_seed(1)
    agent = Halved(AgentConfig(width=16, layers=1, context_length=4), spec)
    before = weights_of(agent)
    settings = {name: SMALL[name] for name in SMALL.keys() - {"width", "layers", "context_length"}}
    run = train(data, agent, env=LINE, out=tmp_path / "run", **settings)
    assert run.agent is agent
    assert any(not torch.equal(a, b) for a, b in zip(before, weights_of(agent), strict=True))
    assert all(100 < loss < 101 for _, loss in scalars(tmp_path / "run")["training/loss"])
    assert run.scores[0].return_mean == 10.0
    with pytest.raises(UserError, match="width: the agent that was given is made already"):
        train(data, agent, width=32)
    with pytest.raises(UserError, match=r"weights of torch\.float64,"):
        train(data, copy.deepcopy(agent).double(), env="none")
    with pytest.raises(UserError, match=r"agent.float\(\) makes them so"):
        copy.deepcopy(agent).bfloat16().policy(1)
    assert "on line, " in repr(run)
    assert "scores [10.0]" in repr(run)
    hopper = load_trajectories("aaren-rl/hopper-small-v0")
    with pytest.raises(UserError, match="observation_space: the agent was made for Box"):
        train(hopper, agent, env="none")


def test_optimiser_and_schedule_of_ones_own() -> None:
    """Plain SGD whose rate is 0 after the fifth update: only the first five learn."""

    def optimizer(agent: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(agent.parameters(), lr=0.5, momentum=0.9)

    five = train(line_data(), optimizer=optimizer, schedule=lambda _: 1.0, **SMALL | {"updates": 5})
    more = train(
        line_data(),
        optimizer=optimizer,
        schedule=lambda update: float(update < 5),
        **SMALL,
    )
    same = zip(weights_of(five.agent), weights_of(more.agent), strict=True)
    assert all(torch.equal(one, other) for one, other in same)
    other = train(line_data(), **SMALL | {"updates": 5})
    assert not torch.equal(weights_of(five.agent)[0], weights_of(other.agent)[0])


def test_an_optimiser_of_ones_own_goes_on(tmp_path: Path) -> None:
    def optimizer(agent: torch.nn.Module) -> torch.optim.Optimizer:
        return torch.optim.SGD(agent.parameters(), lr=0.1, momentum=0.9)

    how = {**SMALL, "optimizer": optimizer, "schedule": "constant", "warmup": 0.0}
    whole = train(line_data(), **how)
    train(line_data(), out=tmp_path, **how | {"updates": 12})
    run = train(line_data(), out=tmp_path, resume=True, **how)
    for one, other in zip(weights_of(whole.agent), weights_of(run.agent), strict=True):
        assert torch.equal(one, other)


def test_a_preset_and_settings_that_win() -> None:
    config = train(
        line_data(), preset="control", **SMALL | {"heads": 2, "recency": (0.5, 0)}
    ).config
    assert (config.preset, config.model.heads, config.model.recency) == ("control", 2, (0.5, 0.0))
    assert train(line_data(), preset="control", **SMALL).config.model.heads == 4


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updatez": 3}, "unknown setting 'updatez'; did you mean updates?"),
        ({"wdth": 3}, "unknown setting 'wdth'; did you mean width?"),
        ({"dataset": "x"}, "no setting 'dataset'"),
        ({"updates": "many"}, "updates: expected int, got str"),
        ({"updates": [3]}, "updates: expected int, got array"),
        ({"width": 2.5}, "width: expected int"),
        ({"updates": 0}, "--updates must be at least 1"),
        ({"agent": "decision-aren"}, "--agent decision-aren: unknown agent"),
        ({"agent": DecisionAaren}, "agent: DecisionAaren is a class; give the name of register"),
        ({"preset": "kontrol"}, "preset"),
        ({"loggers": ["tensorbord"]}, "unknown logger 'tensorbord'; did you mean tensorboard?"),
        ({"loggers": ["csv"]}, r"CSVLogger\(file\): needed"),
        ({"env": "Nowhere-v0"}, "environment 'Nowhere-v0'"),
    ],
)
def test_mistakes_are_one_line(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        train(line_data(), **{**SMALL, **settings})
    assert "\n" not in str(caught.value)


def test_settings_may_be_numbers_and_arrays_of_numpy() -> None:
    data, numbers = line_data(), {"seed": np.int64(3), "learning_rate": np.float64(0.25)}
    best = data.episode_returns.max()
    for target in (best, [best], np.array([best]), best.astype(np.float32)):
        config = train(data, **SMALL | numbers | {"target_return": target}).config
        assert (config.seed, config.learning_rate, config.target_return) == (3, 0.25, (best,))


@pytest.mark.parametrize(
    "data", [list(line_data().episode(i) for i in (0, 1)), {"actions": [1]}, None, 5]
)
def test_what_is_no_dataset_is_told_how_to_become_one(data: Any) -> None:
    with pytest.raises(UserError, match=r"from_episodes, of .*from_arrays"):
        train(data, **SMALL)


def test_every_agent_by_name() -> None:
    for name in AGENTS:
        run = train(line_data(), name, env=LINE, **SMALL | {"updates": 2, "target_return": ()})
        assert run.agent.name == name


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (torch.optim.SGD, "a function of the agent expected, .* got the class SGD"),
        (torch.optim.SGD([torch.zeros(1)]), "a function of the agent expected, .* got SGD"),
        (lambda agent: None, "the function gave NoneType, not an optimiser"),
    ],
)
def test_an_optimizer_is_made_by_a_function(optimizer: Any, message: str) -> None:
    with pytest.raises(UserError, match=f"optimizer: {message}"):
        train(line_data(), optimizer=optimizer, **SMALL)


def test_a_loop_by_hand(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The one in the package's documentation, as it stands there but shorter."""
    monkeypatch.chdir(tmp_path)
    text = inspect.getdoc(training)
    assert text is not None
    code = textwrap.dedent(text[text.index("    data =") :])
    assert "range(1000)" in code
    names: dict[str, Any] = {
        "torch": torch,
        "load_dataset": load_dataset,
        "WindowSampler": WindowSampler,
        **{name: getattr(training, name) for name in ("TrainConfig", "build_agent")},
    }
    exec(code.replace("range(1000)", "range(3)"), names)
    assert torch.isfinite(names["loss"])
    assert load_agent(tmp_path / "my-agent").name == "decision-aaren"


class Narrow(Line):
    """Takes a tenth of what the data hold."""

    action_space = gymnasium.spaces.Box(-0.1, 0.1, (1,))

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action), action
        return super().step(action)


@pytest.mark.parametrize("form", ["class", "instance", "several", "file"])
def test_its_spaces_hold_whatever_form_it_and_the_data_have(
    form: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first, second = (dataclasses.replace(line_data(), name=f"{form} {i}") for i in range(2))
    data: Any = [first, second] if form == "several" else first
    if form == "file":
        data = str(line_file(tmp_path / "line.hdf5"))
    env = Narrow() if form == "instance" else Narrow
    run = train(data, env=env, num_envs=1, **{**SMALL, "updates": 2, "episodes": 1})
    assert run.agent.spec.action_space == Narrow.action_space
    assert run.scores[0].return_mean == 10.0
    assert "they are clipped to them" in caplog.text


def test_an_observation_has_the_environments_form() -> None:
    rng = np.random.default_rng(0)
    data = TrajectoryDataset.from_arrays(
        observations=rng.integers(0, 16, 40),
        actions=rng.integers(0, 3, 40),
        rewards=np.ones(40),
        terminals=np.arange(40) % 8 == 7,
    )
    run = train(data, env="FrozenLake-v1", **{**SMALL, "updates": 2, "episodes": 1})
    spaces_ = run.agent.spec.observation_space, run.agent.spec.action_space
    assert spaces_ == (gymnasium.spaces.Discrete(16), gymnasium.spaces.Discrete(4))

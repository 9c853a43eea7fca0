"""The config: as JSON and back, what it refuses, and the learning rate that it asks for."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from aaren_rl.agents import AgentConfig
from aaren_rl.errors import UserError
from aaren_rl.experiments.comparison import CompareConfig
from aaren_rl.training import TrainConfig
from aaren_rl.training.learner import learning_rate_factor

FILE = Path("somewhere/config.json")


def changed() -> TrainConfig:
    """No field at its default."""
    return TrainConfig(
        dataset="hopper-medium-v2",
        agent="decision-transformer",
        seed=7,
        updates=123,
        batch_size=32,
        learning_rate=3e-4,
        weight_decay=0.01,
        windows="inside",
        warmup=0.2,
        schedule="constant",
        gradient_clip=1.0,
        precision="bf16",
        device="cpu",
        devices=2,
        top_percent=10.0,
        normalize_observations=False,
        returns_scale=10.0,
        environment="Hopper-v5",
        evaluate_every=11,
        episodes=3,
        mode="reset",
        target_return=(1.0, 2.5),
        checkpoint_every=13,
        log_every=7,
        model=AgentConfig(
            context_length=8,
            layers=2,
            width=64,
            heads=4,
            dropout=0.0,
            attention_dropout=0.2,
            activation="gelu",
            timestep_embedding="none",
            max_episode_length=77,
        ),
    )


@pytest.mark.parametrize("config", [TrainConfig(), changed()])
def test_a_config_goes_to_json_and_back(config: TrainConfig) -> None:
    text = json.dumps(config.to_json(), allow_nan=False)
    back = TrainConfig.from_json(json.loads(text), FILE)
    assert back == config
    assert back.to_json() == json.loads(text)


def test_where_a_run_lies_is_no_part_of_it() -> None:
    config = TrainConfig(out=Path("elsewhere"), resume=True)
    assert config.to_json() == TrainConfig().to_json()


@pytest.mark.parametrize(
    "change",
    [
        {"learning_speed": 3},
        {"model": {"depth": 3}},
        {"model": None},
        {"target_return": None},
    ],
)
def test_a_config_of_something_else_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=r"somewhere/config.json: not the config of a training run"):
        TrainConfig.from_json({**TrainConfig().to_json(), **change}, FILE)


@pytest.mark.parametrize("content", [{}, [], [1, 2], "text", 3, None])
def test_json_that_is_no_config_is_refused(content: Any) -> None:
    with pytest.raises(UserError, match=r"somewhere/config.json: not the config of a training run"):
        TrainConfig.from_json(content, FILE)


def test_the_default_folder_is_named_after_the_run(tmp_path: Path) -> None:
    config = TrainConfig(agent="decision-transformer", seed=3)
    folder = Path("runs/aaren-rl/hopper-small-v0/decision-transformer/seed-3")
    assert config.run_folder == folder
    file = tmp_path / "my_data-v2.hdf5"
    file.touch()
    assert TrainConfig(dataset=str(file)).run_folder == Path(
        "runs/my_data-v2/decision-aaren/seed-0"
    )
    assert TrainConfig(out=Path("here")).run_folder == Path("here")


NAN, INF = math.nan, math.inf


@pytest.mark.parametrize("kind", [TrainConfig, CompareConfig])
@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"updates": 0}, "--updates must be at least 1, got 0"),
        ({"updates": -5}, "--updates must be at least 1, got -5"),
        ({"batch_size": 0}, "--batch-size must be at least 1"),
        ({"devices": 0}, "--devices must be at least 1"),
        ({"devices": 3}, r"--devices \(3\) must divide --batch-size \(64\)"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"log_every": -1}, "--log-every must be at least 1"),
        ({"evaluate_every": 0}, "--evaluate-every must be at least 1, got 0"),
        ({"checkpoint_every": -2}, "--checkpoint-every must be at least 1, got -2"),
        ({"learning_rate": 0.0}, "--learning-rate must be positive and finite"),
        ({"learning_rate": -1e-3}, "--learning-rate must be positive and finite, got -0.001"),
        ({"learning_rate": NAN}, "--learning-rate must be positive and finite, got nan"),
        ({"learning_rate": INF}, "--learning-rate must be positive and finite, got inf"),
        ({"learning_rate": 2.0}, "--learning-rate must be at most 1"),
        ({"gradient_clip": 0.0}, "--gradient-clip must be positive and finite"),
        ({"returns_scale": -1.0}, "--returns-scale must be positive and finite"),
        ({"returns_scale": 0.0}, "--returns-scale must be positive and finite"),
        ({"weight_decay": -0.1}, r"--weight-decay must be in \[0, 1\)"),
        ({"weight_decay": NAN}, r"--weight-decay must be in \[0, 1\)"),
        ({"warmup": 1.5}, r"--warmup is a share of the updates in \[0, 1\]"),
        ({"warmup": NAN}, r"--warmup is a share of the updates in \[0, 1\]"),
        ({"top_percent": 0.0}, r"--top-percent must be in \(0, 100\]"),
        ({"top_percent": 101.0}, r"--top-percent must be in \(0, 100\]"),
        ({"top_percent": NAN}, r"--top-percent must be in \(0, 100\]"),
        ({"target_return": (1.0, NAN)}, "--target-return must be finite"),
        ({"model": AgentConfig(width=-16)}, "--width must be at least 1, got -16"),
        ({"model": AgentConfig(heads=3)}, r"--heads \(3\) must divide --width \(128\)"),
    ],
)
def test_impossible_settings(kind: type, settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message) as caught:
        kind(**settings).check()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_impossible_seeds(seed: int) -> None:
    with pytest.raises(UserError, match=r"--seed must be in \[0, 2\^32\)"):
        TrainConfig(seed=seed).check()


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"agents": ()}, "--agents must be at least one, each once"),
        ({"agents": ("decision-aaren",) * 2}, "--agents must be at least one, each once"),
        ({"seeds": ()}, "--seeds must be at least one, each once"),
        ({"seeds": (1, 2, 1)}, r"--seeds must be at least one, each once, got \(1, 2, 1\)"),
        ({"seeds": (0, -1)}, "--seed"),
    ],
)
def test_impossible_comparisons(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        CompareConfig(**settings).check()


def test_defaults_are_those_that_were_measured() -> None:
    """docs/learning.md says why; the default agent acts in episodes of any length."""
    config = TrainConfig()
    assert (config.batch_size, config.learning_rate, config.weight_decay) == (64, 2e-3, 1e-4)
    assert (config.gradient_clip, config.precision) == (0.25, "auto")
    assert config.standardize_returns
    model = config.model
    assert (model.layers, model.width, model.heads, model.context_length) == (3, 128, 1, 20)
    assert (model.dropout, model.embedding_dropout) == (0.1, 0.0)
    assert model.timestep_embedding == "none"
    assert (config.evaluation_interval, config.checkpoint_interval) == (300, 300)
    config = TrainConfig(updates=5, checkpoint_every=2)
    assert (config.evaluation_interval, config.checkpoint_interval) == (1, 2)


def factors(updates: int, warmup: float, schedule: Any) -> list[float]:
    return [learning_rate_factor(each, updates, warmup, schedule) for each in range(updates)]


def test_the_rate_rises_linearly_then_falls_as_a_cosine() -> None:
    rates = factors(110, 10 / 110, "cosine")
    assert rates[:10] == pytest.approx([0.1 * step for step in range(1, 11)])
    wanted = [0.1 + 0.45 * (1 + math.cos(math.pi * step / 100)) for step in range(100)]
    assert rates[10:] == pytest.approx(wanted)
    assert learning_rate_factor(110, 110, 10 / 110, "cosine") == pytest.approx(0.1)


def test_the_rate_rises_linearly_then_stays() -> None:
    assert factors(8, 0.5, "constant") == pytest.approx([0.25, 0.5, 0.75, 1, 1, 1, 1, 1])


@pytest.mark.parametrize("schedule", ["cosine", "constant"])
@pytest.mark.parametrize(("updates", "warmup"), [(1, 0.1), (1, 1.0), (7, 0.0), (7, 1.0), (2, 0.1)])
def test_no_rate_is_zero_or_above_the_peak(updates: int, warmup: float, schedule: str) -> None:
    assert all(0 < rate <= 1 for rate in factors(updates, warmup, schedule))


@pytest.mark.parametrize("clip", [10.0, INF])
def test_the_clip_goes_to_json_and_back(clip: float) -> None:
    config = TrainConfig(model=AgentConfig(observation_clip=clip))
    text = json.dumps(config.to_json(), allow_nan=False)
    assert TrainConfig.from_json(json.loads(text), FILE) == config


def test_what_behavior_cloning_ignored_is_left_out_of_old_configs() -> None:
    """So that a run from when it took a mode and targets can go on."""
    content = TrainConfig(agent="behavior-cloning").to_json()
    old = {**content, "mode": "window", "target_return": [3.0]}
    assert TrainConfig.from_json(old, FILE) == TrainConfig(agent="behavior-cloning")
    kept = TrainConfig(mode="window", target_return=(3.0,))
    assert TrainConfig.from_json(kept.to_json(), FILE) == kept

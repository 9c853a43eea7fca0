"""`evaluate --runtime onnx` plays the same episodes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from exported_agents import exported, make_aaren, make_agent

from aaren_rl.agents import Agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate, evaluating
from aaren_rl.export import onnx_policies
from aaren_rl.runtime import OnnxPolicy
from aaren_rl.runtime.card import card_path


def saved(agent: Agent, folder: Path) -> Path:
    run = folder / "run"
    run.mkdir()
    agent.save(run)
    return run


@pytest.mark.parametrize("name", ["decision-aaren", "behavior-cloning"])
def test_the_same_episodes_as_pytorch(tmp_path: Path, name: str) -> None:
    agent = make_agent(name)
    run = saved(agent, tmp_path)
    file = exported(agent, tmp_path)
    settings = {"run": run, "episodes": 5, "num_envs": 3}
    by_torch = evaluate(EvaluateConfig(**settings))  # type: ignore[arg-type]
    for own in (None, file):
        by_onnx = evaluate(
            EvaluateConfig(**settings, runtime="onnx", exported=own),  # type: ignore[arg-type]
            policies=onnx_policies,
        )
        assert (by_torch.about["runtime"], by_onnx.about["runtime"]) == ("torch", "onnx")
        ours, theirs = by_onnx.rows[0], by_torch.rows[0]
        assert ours.lengths == theirs.lengths
        assert ours.returns == pytest.approx(theirs.returns, rel=1e-3)
        assert ours.target_return == theirs.target_return


def test_a_video_shows_the_exported_step(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recorded: list[Any] = []

    def record(*_: Any, make_policy: Any, **__: Any) -> Path:
        recorded.append(make_policy(1, None, None))
        return tmp_path / "episode.mp4"

    monkeypatch.setattr(evaluating, "record_video", record)
    config = EvaluateConfig(
        saved(make_aaren(), tmp_path), episodes=1, runtime="onnx", video=tmp_path
    )
    assert evaluate(config, policies=onnx_policies).video == tmp_path / "episode.mp4"
    assert isinstance(recorded[0], OnnxPolicy)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"runtime": "onnx", "mode": ("window",)}, "carries the state: --mode carry, not window"),
        ({"exported": Path("x.onnx")}, "--exported x.onnx needs --runtime onnx"),
        ({"runtime": "onnx", "exported": Path("x.onnx")}, r"x.onnx.json: no such file"),
    ],
)
def test_wrong_flags(tmp_path: Path, settings: dict[str, object], message: str) -> None:
    run = saved(make_aaren(), tmp_path)
    with pytest.raises(UserError, match=message):
        evaluate(EvaluateConfig(run=run, episodes=1, **settings), policies=onnx_policies)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("other", "message"),
    [
        (
            {"name": "behavior-cloning"},
            "its agent is behavior-cloning, the run's is decision-aaren",
        ),
        ({"condition": "max-return"}, "its condition is max-return, the run's is target"),
        ({"action_space": gym.spaces.Box(-2, 2, (3,), np.float32)}, "its action_space is "),
        ({"action_space": gym.spaces.Discrete(3)}, r"its actions is \(\(\), 'int64'\)"),
        ({"dataset": "other"}, "its dataset is other, the run's is made-up"),
    ],
)
def test_the_file_of_another_agent(tmp_path: Path, other: dict[str, Any], message: str) -> None:
    run = saved(make_aaren(), tmp_path)
    agent = make_agent(**{key: value for key, value in other.items() if key != "dataset"})
    agent.spec = replace(agent.spec, dataset=other.get("dataset", agent.spec.dataset))
    file = exported(agent, tmp_path)
    config = EvaluateConfig(run=run, episodes=1, runtime="onnx", exported=file)
    with pytest.raises(UserError, match=message):
        evaluate(config, policies=onnx_policies)


@pytest.mark.parametrize(
    ("said", "message"),
    [
        ({"kind": "c"}, "step.onnx: is a c export; --format onnx is needed"),
        (
            {"provenance": {"run": "runs/a", "checkpoint": "best", "weights_sha256": "0"}},
            "has other weights than the run's checkpoint; it was exported from run runs/a "
            "checkpoint best, update None",
        ),
    ],
)
def test_a_file_of_other_weights_or_format(
    tmp_path: Path, said: dict[str, Any], message: str
) -> None:
    agent = make_aaren()
    run, file = saved(agent, tmp_path), exported(agent, tmp_path)
    card = json.loads(card_path(file).read_text())
    right = hashlib.sha256((run / "agent.safetensors").read_bytes()).hexdigest()
    config = EvaluateConfig(run=run, episodes=1, runtime="onnx", exported=file)
    card["provenance"]["weights_sha256"] = right
    card_path(file).write_text(json.dumps(card))
    assert evaluate(config, policies=onnx_policies).rows
    provenance = {**card["provenance"], **said.get("provenance", {})}
    card_path(file).write_text(json.dumps({**card, **said, "provenance": provenance}))
    with pytest.raises(UserError, match=message):
        evaluate(config, policies=onnx_policies)


def test_the_transformer_cannot(tmp_path: Path) -> None:
    run = saved(make_agent("decision-transformer"), tmp_path)
    with pytest.raises(UserError, match="decision-transformer cannot be exported"):
        evaluate(EvaluateConfig(run=run, episodes=1, runtime="onnx"), policies=onnx_policies)

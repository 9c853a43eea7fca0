"""Agents for discrete control, by the real commands: collect, train, evaluate, compare."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from collect_cases import Collections

from aaren_rl.agents import load_agent
from aaren_rl.cli import main
from aaren_rl.data import load_trajectories
from aaren_rl.training import train

AGENTS = ["decision-aaren", "decision-transformer", "behavior-cloning"]
TINY = (
    *("--updates", "60", "--batch-size", "16", "--context-length", "8", "--learning-rate", "3e-3"),
    *("--width", "32", "--layers", "1", "--evaluate-every", "30", "--episodes", "2"),
    *("--log-every", "10", "--device", "cpu", "--dropout", "0"),
)


@pytest.fixture(scope="module")
def lander(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """LunarLander's random dataset: four actions, rewards of both signs, returns below zero."""
    pytest.importorskip("Box2D", reason="LunarLander needs the package box2d")
    root = tmp_path_factory.mktemp("lander")
    words = ["--datasets", "random", "--steps", "1500", "--expert-return", "200"]
    places = ["--root", str(root), "--out", str(root / "run"), "--reference-episodes", "5"]
    assert main(["collect", "LunarLander-v3", *words, *places]) == 0
    assert not (root / "run" / "policies").exists()  # who wants no learner gets none
    return root / "collected/lunarlander/random-v0"


@pytest.fixture(params=["cartpole", "lunarlander"])
def source(request: pytest.FixtureRequest, collections: Collections) -> Path:
    if request.param == "lunarlander":
        found: Path = request.getfixturevalue("lander")
        return found
    return collections.root("ppo") / "collected/cartpole/medium-replay-v0"


@pytest.mark.parametrize("agent", AGENTS)
def test_train_and_evaluate(
    source: Path, agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data, run, file = load_trajectories(source), tmp_path / "run", tmp_path / "scores.json"
    flags = ["--dataset", str(source), "--agent", agent, "--out", str(run)]
    assert main(["train", *TINY, *flags]) == 0
    assert "return mean" in capsys.readouterr().out
    summary = json.loads((run / "summary.json").read_text())
    [score] = summary["scores"]
    assert score["normalized"]
    low, high = data.reference_scores or (0.0, 0.0)
    assert score["score_mean"] == pytest.approx(100 * (score["return_mean"] - low) / (high - low))
    target = None if agent == "behavior-cloning" else data.episode_returns.max()
    assert score["target_return"] == target
    asked = [] if target is None else ["--target-return", "500", "-20.5"]
    words = ["--episodes", "3", "--json", str(file)]
    if target is not None:
        words += ["--mode", "carry", "window"]
    assert main(["evaluate", str(run), *words, *asked]) == 0
    rows = json.loads(file.read_text())["rows"]
    assert len(rows) == (1 if target is None else 4)
    assert all(np.isfinite(row["return_mean"]) and row["episodes"] == 3 for row in rows)


def test_it_learns_who_pushes_where(source: Path, tmp_path: Path, tiny: Any) -> None:
    """The loss falls below that of guessing by the actions' frequencies."""
    data = load_trajectories(source)
    shares = np.bincount(data.actions) / len(data.actions)
    guessing = -float(np.sum(shares * np.log(shares)))
    run = tmp_path / "run"
    settings = {"updates": 200, "evaluate_every": 200, "batch_size": 32, "environment": "none"}
    train(tiny(run, dataset=str(source), model={"width": 32}, **settings))
    agent = load_agent(run / "last").eval()
    from aaren_rl.data import WindowSampler

    batch = WindowSampler(data, batch_size=256, context_length=5, seed=9).sample()
    if source.parent.name == "cartpole":
        assert float(agent(batch).detach()) < 0.98 * guessing
    else:  # random actions: nothing to learn, and nothing to break
        assert float(agent(batch).detach()) == pytest.approx(guessing, rel=0.1)


def test_compare(source: Path, tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    flags = ["--dataset", str(source), "--agents", *AGENTS, "--seeds", "0", "1"]
    assert main(["compare", *TINY, *flags, "--out", str(out)]) == 0
    rows = json.loads((out / "comparison.json").read_text())
    assert [row["agent"] for row in rows] == AGENTS


def test_without_reference_scores(
    collections: Collections, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The plain return takes the score's place."""
    source = tmp_path / "plain-v0"
    shutil.copytree(collections.root("ppo") / "collected/cartpole/medium-v0", source)
    metadata = source / "data/metadata.json"
    content = json.loads(metadata.read_text())
    del content["ref_min_score"], content["ref_max_score"]
    metadata.write_text(json.dumps(content))
    run = tmp_path / "run"
    assert main(["train", *TINY, "--dataset", str(source), "--out", str(run)]) == 0
    [score] = json.loads((run / "summary.json").read_text())["scores"]
    assert not score["normalized"]
    assert score["score_mean"] == score["return_mean"]
    assert main(["evaluate", str(run), "--episodes", "2"]) == 0

"""The learning benchmark: its arithmetic, a tiny run of it, and how it goes on after a stop."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from rich.console import Console

from aaren_rl.agents import AgentConfig
from aaren_rl.data import load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.training.presets import PRESETS
from benchmarks import learning, learning_peers
from benchmarks.learning import LearningConfig, by_processor, score_at, seconds_to_share, summarise
from benchmarks.learning_peers import Plan, corl_config, make_contender, write_episodes
from benchmarks.learning_picture import report

HOPPER = "aaren-rl/hopper-small-v0"
PLAN = Plan(updates=4, evaluate_every=2, episodes=1, threads=1)

# Stands in for an interpreter that has d3rlpy: answers the question for versions, and "trains".
FAKE_PYTHON = """#!{python}
import json, sys
if sys.argv[1] == "-c":
    print(json.dumps({{"d3rlpy": "2.8.1"}}))
    raise SystemExit
job = json.load(open(sys.argv[2]))
if job["seed"] == 13:
    raise SystemExit("unlucky")
curve = [
    {{"update": u, "train_seconds": 0.5 * u, "returns": [100.0 * u] * job["episodes"]}}
    for u in range(job["evaluate_every"], job["updates"] + 1, job["evaluate_every"])
]
result = {{"curve": curve, "parameters": 9, "cpu_share": 1.0, "config": job["settings"]}}
json.dump(result, open(sys.argv[3], "w"))
"""


@pytest.fixture(autouse=True)
def _preset(monkeypatch: pytest.MonkeyPatch) -> None:
    if "chen2021" not in PRESETS:
        monkeypatch.setitem(PRESETS, "chen2021", {"schedule": "constant", "model": AgentConfig()})


@pytest.fixture
def fake_python(tmp_path: Path) -> Path:
    file = tmp_path / "python"
    file.write_text(FAKE_PYTHON.format(python=sys.executable))
    file.chmod(0o755)
    return file


def curve(*points: tuple[float, float]) -> list[dict[str, Any]]:
    return [
        {"update": 10 * (index + 1), "train_seconds": seconds, "score": score}
        for index, (seconds, score) in enumerate(points)
    ]


def test_score_at_a_time_is_interpolated_and_never_extrapolated() -> None:
    line = curve((2.0, 10.0), (4.0, 30.0), (8.0, 20.0))
    assert [score_at(line, t) for t in (2.0, 3.0, 4.0, 6.0, 8.0)] == [10, 20, 30, 25, 20]
    assert score_at(line, 1.99) is None
    assert score_at(line, 8.01) is None


def test_seconds_to_a_share_of_the_own_final_score() -> None:
    assert seconds_to_share(curve((1.0, 0.0), (3.0, 50.0), (5.0, 100.0))) == pytest.approx(4.6)
    # reached between the first two, although the score falls again
    assert seconds_to_share(curve((1.0, 0.0), (3.0, 180.0), (5.0, 100.0))) == pytest.approx(2.0)
    assert seconds_to_share(curve((1.0, 95.0), (3.0, 20.0), (5.0, 100.0))) == 1.0
    assert seconds_to_share(curve((1.0, 5.0), (3.0, -1.0))) is None


def test_equal_seconds_are_the_shortest_trainings() -> None:
    def run(seed: int, *points: tuple[float, float], share: float = 1.0) -> dict[str, Any]:
        return {"seed": seed, "curve": curve(*points), "parameters": 1, "cpu_share": share}

    runs = {
        "corl": [run(0, (2.0, 10.0), (4.0, 30.0)), run(1, (3.0, 10.0), (6.0, 40.0))],
        "d3rlpy": [run(0, (5.0, 1.0), (10.0, 2.0)), run(1, (1.0, 1.0), (7.0, 7.0), share=0.5)],
    }
    result = summarise(runs)
    assert result["equal_seconds"] == 4.0
    found = result["contenders"]
    assert found["corl"]["score_at_equal_seconds"] == [30.0, 20.0]
    assert found["d3rlpy"]["score_at_equal_seconds"] == [None, 4.0]
    assert found["corl"]["final_score"] == [30.0, 40.0]
    assert found["corl"]["ms_per_update"] == [200.0, 300.0]
    console = Console(width=130, record=True)
    report({"datasets": {"x": result}}, "wall", console)
    text = console.export_text()
    rival = next(line for line in text.splitlines() if "d3rlpy" in line)
    assert "4.5" in rival  # the final score, mean over seeds
    assert " - " in rival  # one seed was not yet evaluated by then
    assert "50% of the time" in text
    halved = by_processor(runs["d3rlpy"][1])["curve"]
    assert [row["train_seconds"] for row in halved] == [0.5, 3.5]
    assert [row["score"] for row in halved] == [1.0, 7.0]


def test_a_run_from_training_to_picture_and_again(
    tmp_path: Path, fake_python: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def config(**changes: Any) -> LearningConfig:
        settings: dict[str, Any] = {
            "datasets": (HOPPER,),
            "seeds": (0,),
            "updates": 4,
            "evaluations": 2,
            "episodes": 1,
            "contenders": ("decision-aaren", "corl", "d3rlpy-tuned"),
            "d3rlpy_python": fake_python,
            "out": tmp_path / "out" / "learning.json",
            "work": tmp_path / "work",
        }
        return LearningConfig(**{**settings, **changes})

    trained: list[str] = []
    train = learning_peers.train
    monkeypatch.setattr(learning_peers, "train", lambda c: trained.append(c.agent) or train(c))
    learning.main(config())
    out = tmp_path / "out" / "learning.json"
    first = json.loads(out.read_text())
    found = first["datasets"][HOPPER]["contenders"]
    assert list(found) == ["decision-aaren", "corl", "d3rlpy-tuned"]
    assert trained == ["decision-aaren", "decision-transformer"]
    for each in found.values():
        rows = each["runs"][0]["curve"]
        assert [row["update"] for row in rows] == [2, 4]
        assert 0 < rows[0]["train_seconds"] < rows[1]["train_seconds"]
        assert np.isfinite([row["score"] for row in rows]).all()
    low, high = load_trajectories(HOPPER).reference_scores or (0, 100)
    assert found["d3rlpy-tuned"]["final_score"] == [pytest.approx(100 * (400 - low) / (high - low))]
    assert out.with_suffix(".png").stat().st_size > 10_000
    # Killed while it trained the second: only that one is done again.
    record = next((tmp_path / "work").rglob("corl_*.json"))
    record.unlink()
    record.with_suffix(".running").mkdir()
    (record.with_suffix(".running") / "data").write_text("half")
    learning.main(config())
    assert trained[2:] == ["decision-transformer"]
    assert not list((tmp_path / "work").rglob("*.running"))
    again = json.loads(out.read_text())["datasets"][HOPPER]["contenders"]
    assert again["decision-aaren"] == found["decision-aaren"]
    assert again["corl"]["final_score"] == found["corl"]["final_score"]  # same seed, same training
    # Other settings: what was stored does not count.
    learning.main(config(episodes=2, contenders=("decision-aaren", "d3rlpy"), d3rlpy_python=None))
    assert trained[3:] == ["decision-aaren"]
    last = json.loads(out.read_text())
    assert last["left_out"] == ["d3rlpy"]
    assert list(last["datasets"][HOPPER]["contenders"]) == ["decision-aaren"]


def test_a_rival_that_fails_says_why(tmp_path: Path, fake_python: Path) -> None:
    contender = make_contender("d3rlpy", HOPPER, 13, PLAN, fake_python)
    with pytest.raises(UserError, match=r"exit code 1, unlucky \(see .*log\)"):
        contender.run(tmp_path)
    with pytest.raises(UserError, match=r"--d3rlpy-python .*nowhere: No such file"):
        make_contender("d3rlpy", HOPPER, 0, PLAN, tmp_path / "nowhere")


def test_rivals_have_their_published_settings(fake_python: Path) -> None:
    def settings(name: Any) -> Any:
        return make_contender(name, HOPPER, 0, PLAN, fake_python).settings()

    assert settings("d3rlpy")["settings"]["warmup_updates"] == 10_000
    assert settings("d3rlpy-tuned")["settings"]["warmup_updates"] == 1  # a share of 4
    assert settings("d3rlpy-defaults")["settings"] is None
    assert settings("d3rlpy")["environment"]["id"] == "Hopper-v5"
    assert settings("d3rlpy")["target_return"] == 3600
    assert settings("corl")["learning_rate"] == 1e-4
    assert settings("corl-tuned")["learning_rate"] == 8e-4
    model = corl_config("corl", HOPPER, {}).model
    assert (model.activation, model.heads, model.recency) == ("gelu", 1, ())
    assert (model.embedding_dropout, model.embedding_start) == (0.1, "gpt2")


def test_episodes_for_the_rival(tmp_path: Path) -> None:
    write_episodes(HOPPER, tmp_path / "data.npz")
    data = load_trajectories(HOPPER)
    with np.load(tmp_path / "data.npz") as arrays:
        ends = arrays["terminals"] + arrays["timeouts"]
        np.testing.assert_array_equal(np.flatnonzero(ends), data.offsets[1:] - 1)
        assert ends.max() == 1
        assert arrays["terminals"].sum() == data.terminated.sum()
        np.testing.assert_array_equal(arrays["actions"], data.actions)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"updates": 5, "evaluations": 2}, r"--updates \(5\) must be a multiple of --evaluations"),
        ({"episodes": 0}, "--episodes must be at least 1"),
        ({"seeds": ()}, "--seeds: at least one"),
        ({"clock": "processor", "threads": 2}, "--clock processor needs --threads 1"),
        ({"contenders": ("d3rlpy",)}, "nobody is left"),
        ({"datasets": ("no-such-data",)}, "no-such-data"),
    ],
)
def test_mistakes(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = LearningConfig(**{"datasets": (HOPPER,), "work": tmp_path, **changes})
    with pytest.raises(UserError, match=message):
        learning.run(config, Console(quiet=True))

"""Scores, intervals and costs against numbers worked out by hand."""

from __future__ import annotations

import dataclasses
import itertools
import json
import warnings
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from evaluation_cases import agent_for

from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec, Mode
from aaren_rl.evaluation import (
    Episodes,
    Estimate,
    acting_cost,
    mean_interval,
    normalized_scores,
    score,
)
from aaren_rl.evaluation.scores import warn_of_far_targets

HOPPER = (-20.272305, 3234.3)


def hopper_agent(reference: tuple[float, float] | None) -> Any:
    spec = AgentSpec(
        gym.spaces.Box(-np.inf, np.inf, (3,)),
        gym.spaces.Box(-1, 1, (1,)),
        reference_scores=reference,
    )
    return AGENTS["behavior-cloning"].make(AgentConfig(width=4, layers=1), spec)


def test_normalised_scores() -> None:
    returns = np.array([-20.272305, 3234.3, 1607.0138475, 3600.0])
    wanted = [0.0, 100.0, 50.0, 100 * (3600.0 + 20.272305) / 3254.572305]
    np.testing.assert_allclose(normalized_scores(returns, HOPPER), wanted, rtol=1e-12)
    assert normalized_scores(returns, None).tolist() == returns.tolist()


def test_a_score_summarises_its_episodes() -> None:
    episodes = Episodes(np.array([0.0, 100, 200, 500]), np.array([10, 20, 30, 50]), 1.0, 2.0, 60)
    row = score(hopper_agent((0.0, 1000.0)), episodes, 3600.0)
    assert row.target_return == 3600.0
    assert row.normalized
    assert row.score_mean == pytest.approx(20.0)
    assert row.score_std == pytest.approx(np.sqrt((20**2 + 10**2 + 0 + 30**2) / 4))
    assert row.return_mean == pytest.approx(200.0)
    assert row.return_std == pytest.approx(10 * row.score_std)
    assert row.length_mean == pytest.approx(27.5)
    assert row.episodes == 4
    assert row.returns == [0, 100, 200, 500]
    assert row.lengths == [10, 20, 30, 50]
    assert json.loads(json.dumps(row.to_json())) == row.to_json()


def test_without_reference_scores_the_return_is_the_score() -> None:
    episodes = Episodes(np.array([1.0, 3.0]), np.array([1, 1]), 0.0, 0.0, 1)
    row = score(hopper_agent(None), episodes, None)
    assert not row.normalized
    assert row.target_return is None
    assert (row.score_mean, row.score_std) == (row.return_mean, row.return_std) == (2.0, 1.0)


@pytest.mark.parametrize("reference", [(5.0, 5.0), (0.0, np.inf), (np.nan, 1.0)])
def test_reference_scores_of_no_use(reference: tuple[float, float]) -> None:
    episodes = Episodes(np.array([1.0, 3.0]), np.array([1, 1]), 0.0, 0.0, 1)
    with pytest.warns(UserWarning, match="not two different finite numbers"):
        row = score(hopper_agent(reference), episodes, None)
    assert (row.score_mean, row.normalized) == (2.0, False)


def test_huge_returns_stay_numbers_that_json_holds() -> None:
    returns = np.array([1e300, -1.5e308, 1.5e308, 1.5e308])
    row = score(hopper_agent(None), Episodes(returns, np.ones(4, int), 0.0, 0.0, 1), -1e300)
    assert row.return_mean == pytest.approx(1.5e308 / 4, rel=1e-6)
    json.dumps(row.to_json(), allow_nan=False)


def test_targets_far_above_the_data() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warn_of_far_targets([3600.0, None], 3200.0)
        warn_of_far_targets([0.0, -100.0], -200.0)  # all rewards are costs
        warn_of_far_targets([1e9], None)
    for target, best in ((3600.0, 10.0), (500.0, -200.0)):
        with pytest.warns(UserWarning, match="far above the best return in the data"):
            warn_of_far_targets([target], best)


@pytest.mark.parametrize(("runs", "student"), [(5, 2.776445), (6, 2.570582), (200, 1.971957)])
def test_an_interval_is_students(runs: int, student: float) -> None:
    scores = np.random.default_rng(runs).normal(60, 10, runs)
    interval = mean_interval(scores)
    half = student * scores.std(ddof=1) / np.sqrt(runs)
    assert interval.bounds == "95% interval"
    assert interval.value == pytest.approx(scores.mean(), rel=1e-12)
    assert interval.low == pytest.approx(scores.mean() - half, rel=1e-6)
    assert interval.high == pytest.approx(scores.mean() + half, rel=1e-6)


@pytest.mark.parametrize("shape", [(5, 2), (0,), ()])
def test_scores_of_several_tasks_have_no_one_interval(shape: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match=r"scores \[runs\] expected, got the shape"):
        mean_interval(np.zeros(shape))


def test_runs_that_agree_leave_nothing_open() -> None:
    assert mean_interval(np.full(5, 50.0)) == Estimate(50.0, 50.0, 50.0, "95% interval")


def test_of_fewer_than_five_runs_the_range_is_given() -> None:
    assert mean_interval(np.array([61.5])) == Estimate(61.5, 61.5, 61.5, "range")
    assert mean_interval(np.array([70.0, 50.0])) == Estimate(60.0, 50.0, 70.0, "range")
    four = np.array([60.0, 70.0, 75.0, 71.0])
    assert mean_interval(four) == Estimate(69.0, 60.0, 75.0, "range")
    five = mean_interval(np.array([*four, 69.0]))
    assert five.bounds == "95% interval"
    assert five.low == pytest.approx(62.1, abs=0.1)


@pytest.mark.parametrize(
    ("name", "mode"), [("decision-aaren", "carry"), ("decision-transformer", "window")]
)
def test_acting_cost_is_the_median_of_the_last_tenth(
    name: str, mode: Mode, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With a clock by which step k takes k milliseconds."""
    readings = itertools.chain.from_iterable((0.0, step / 1000) for step in itertools.count())
    monkeypatch.setattr("aaren_rl.evaluation.cost.time.perf_counter", lambda: next(readings))
    agent = agent_for("Pendulum-v1", name)
    observations = np.random.default_rng(0).normal(size=(7, 3)).astype(np.float32)
    cost = acting_cost(agent, observations, mode=mode, steps=50)
    assert cost.act_microseconds == pytest.approx(47_000)  # of 45 to 49
    assert len(cost.state_bytes) == 50
    assert len(set(cost.state_bytes)) == 1


def test_acting_cost_shows_a_cache_that_grows() -> None:
    agent = agent_for("Pendulum-v1", "decision-transformer")
    cost = acting_cost(agent, np.zeros((1, 3)), mode="carry", steps=20)
    differences = np.diff(cost.state_bytes)
    assert (differences == 3 * 2 * 16 * 4).all()  # three tokens' key and value
    assert 0 < cost.act_microseconds < 1e6


def test_a_robots_reference_scores_do_not_count_where_it_is_paid_otherwise() -> None:
    agent = hopper_agent(HOPPER)
    agent.spec = dataclasses.replace(agent.spec, dataset="mujoco/hopper/medium-v0")
    played = Episodes(np.array([3234.3]), np.array([1000]), 0.0, 0.0, 1000)
    vector = gym.vector.SyncVectorEnv([lambda: gym.make("Hopper-v5")])
    for env in (None, "Hopper-v5", "Hopper-v4", lambda: gym.make("Hopper-v5"), vector):
        assert score(agent, played, None, env).score_mean == pytest.approx(100)
    own = gym.envs.classic_control.CartPoleEnv  # it has no specification
    for env in ("Hopper-v5?healthy_reward=5.0", own):
        other = score(agent, played, None, env)
        assert (other.normalized, other.score_mean) == (False, 3234.3)

"""A policy refuses what does not fit, names both shapes, and goes on as if it was not asked."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from exported_agents import exported, make_aaren

from aaren_rl.errors import UserError
from aaren_rl.runtime import OnnxPolicy

GOOD: dict[str, Any] = {
    "observations": np.ones((2, 11)),
    "rewards": np.ones(2),
    "dones": np.zeros(2, bool),
}


def spoiled(value: float) -> np.ndarray:
    array = np.ones((2, 11))
    array[1, 4] = value
    return array


BAD: list[tuple[dict[str, Any], str]] = [
    ({"observations": np.ones((2, 12))}, r"must have shape \(2, 11\), got \(2, 12\)"),
    ({"observations": np.ones((3, 11))}, r"must have shape \(2, 11\), got \(3, 11\)"),
    ({"observations": np.ones(22)}, r"must have shape \(2, 11\), got \(22,\)"),
    ({"observations": spoiled(np.nan)}, r"observations of environment \[1\] are not finite"),
    ({"observations": spoiled(np.inf)}, r"observations of environment \[1\] are not finite"),
    ({"rewards": np.ones(3)}, r"rewards must have shape \(2,\), got \(3,\)"),
    ({"rewards": np.array([1, np.nan])}, "rewards are not finite"),
    ({"rewards": np.array([1, 1e300])}, "rewards are not finite"),
    ({"rewards": None}, "rewards are needed"),
    ({"dones": np.zeros(3, bool)}, r"dones must have shape \(2,\), got \(3,\)"),
]


@pytest.mark.parametrize(("bad", "message"), BAD)
def test_a_bad_call_is_no_call(tmp_path: Path, bad: dict[str, Any], message: str) -> None:
    file = exported(make_aaren(), tmp_path)
    asked, twin = OnnxPolicy(file, 2), OnnxPolicy(file, 2)
    rng = np.random.default_rng(0)
    for step in range(8):
        if step in (1, 6):
            before = asked.state()
            with pytest.raises(UserError, match=message):
                asked.act(**{**GOOD, **bad})
            assert all(np.array_equal(asked.state()[name], before[name]) for name in before)
        call = {**GOOD, "observations": rng.normal(size=(2, 11)), "rewards": rng.normal(size=2)}
        call["dones"] = np.array([False, step == 5])
        assert np.array_equal(asked.act(**call), twin.act(**call))


def test_the_timestep_table_ends(tmp_path: Path) -> None:
    policy = OnnxPolicy(exported(make_aaren(max_episode_length=12), tmp_path), 2)
    observations, rewards = np.ones((2, 11)), np.zeros(2)
    for step in range(12):
        policy.act(observations, rewards, np.array([False, step == 7]))
    before = policy.state()
    with pytest.raises(UserError, match=r"13 steps, .* ends at 12"):
        policy.act(observations, rewards)
    assert all(np.array_equal(policy.state()[name], before[name]) for name in before)
    for _ in range(7):  # environment 1 has taken 5 steps
        policy.act(observations, rewards, np.array([_ == 0, False]))
    with pytest.raises(UserError, match=r"13 steps, .* ends at 12"):
        policy.act(observations, rewards)


def test_going_on_from_a_saved_state(tmp_path: Path) -> None:
    file = exported(make_aaren(max_episode_length=12), tmp_path)
    one, other = OnnxPolicy(file, 2), OnnxPolicy(file, 2)
    rng = np.random.default_rng(0)
    for _ in range(5):
        one.act(rng.normal(size=(2, 11)), rng.normal(size=2))
    other.load_state(one.state())
    for _ in range(7):
        call = rng.normal(size=(2, 11)), rng.normal(size=2)
        assert np.array_equal(one.act(*call), other.act(*call))
    for policy in (one, other):
        with pytest.raises(UserError, match="13 steps"):
            policy.act(*call)
    unbegun = OnnxPolicy(file, 2).state()
    assert (unbegun["timestep"] == 0).all()
    other.load_state(unbegun)
    assert np.array_equal(other.act(call[0]), OnnxPolicy(file, 2).act(call[0]))


@pytest.mark.parametrize(
    ("other", "num_envs", "message"),
    [
        ({"width": 48}, 2, r"'state_0': float32 \(2, 1, 33\) expected, got .*\(2, 1, 49\)"),
        ({"heads": 2}, 2, r"'state_0': float32 \(2, 1, 33\) expected, got .*\(2, 2, 17\)"),
        ({}, 3, r"\(2, 3\) expected, got float32 \(3, 3\)"),
        ({"layers": 2}, 2, r"expected, got .*'state_1'.* another model's"),
    ],
)
def test_the_state_of_another_model_is_refused(
    tmp_path: Path, other: dict[str, Any], num_envs: int, message: str
) -> None:
    policy = OnnxPolicy(exported(make_aaren(), tmp_path), 2)
    stranger = OnnxPolicy(exported(make_aaren(**other), tmp_path, "other.onnx"), num_envs)
    stranger.act(np.ones((num_envs, 11)))
    before = policy.state()
    with pytest.raises(UserError, match=message):
        policy.load_state(stranger.state())
    assert all(np.array_equal(policy.state()[name], before[name]) for name in before)


def test_a_state_that_is_not_finite_is_refused(tmp_path: Path) -> None:
    policy = OnnxPolicy(exported(make_aaren(), tmp_path))
    state = policy.state()
    state["state_0"][0, 0, 3] = np.nan
    with pytest.raises(UserError, match="'state_0' is not finite"):
        policy.load_state(state)

"""A policy refuses what it cannot use, says why, and is then as if it had not been asked."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from agent_cases import SEQUENCE_AGENTS, make_agent

from aaren_rl.agents import Mode
from aaren_rl.errors import UserError

WAYS: list[tuple[str, Mode | None]] = [
    (name, mode) for name in SEQUENCE_AGENTS for mode in ("carry", "reset", "window")
] + [("decision-transformer", "sliding"), ("behavior-cloning", None)]
ways = pytest.mark.parametrize(("name", "mode"), WAYS)

GOOD = {"observations": np.ones((2, 4)), "rewards": np.ones(2), "dones": np.zeros(2, bool)}


def with_nan(value: float) -> np.ndarray:
    array = np.ones((2, 4))
    array[1, 2] = value
    return array


BAD_OBSERVATIONS: list[tuple[Any, str]] = [
    (with_nan(np.nan), r"observations of environment \[1\] are not finite"),
    (with_nan(np.inf), r"observations of environment \[1\] are not finite"),
    (np.full((2, 4), np.nan), r"observations of environment \[0, 1\] are not finite"),
    (np.ones((2, 5)), r"observations must have shape \(2, 4\), got \(2, 5\)"),
    (np.ones((3, 4)), r"observations must have shape \(2, 4\), got \(3, 4\)"),
    (np.ones(4), r"observations must have shape \(2, 4\), got \(4,\)"),
    (np.ones((4, 2)), r"observations must have shape \(2, 4\), got \(4, 2\)"),
    (np.full((2, 4), "a"), "observations: values of type <U1; numbers expected"),
    ([[1.0] * 4, [1.0] * 3], "observations: rows of different lengths; equal lengths expected"),
]
BAD_OUTCOMES: list[tuple[dict[str, Any], str]] = [
    ({"rewards": np.ones(3)}, r"rewards must have shape \(2,\), got \(3,\)"),
    ({"rewards": np.ones((2, 1))}, r"rewards must have shape \(2,\), got \(2, 1\)"),
    ({"rewards": 1.0}, r"rewards must have shape \(2,\), got \(\)"),
    ({"rewards": np.array([1, np.nan])}, "rewards are not finite"),
    ({"rewards": np.array([-np.inf, 1])}, "rewards are not finite"),
    ({"rewards": [1.0, None]}, "rewards: values of type object; numbers expected"),
    ({"rewards": np.array([1.0, None])}, "rewards: values of type object; numbers expected"),
    ({"rewards": np.array([1, -1e30])}, r"rewards: numbers up to 1e\+18 expected, got 1e\+30"),
    ({"rewards": None}, "rewards are needed"),
    ({"dones": np.zeros(3, bool)}, r"dones must have shape \(2,\), got \(3,\)"),
    ({"dones": True}, r"dones must have shape \(2,\), got \(\)"),
]


def check_refusal(name: str, mode: Mode | None, bad: dict[str, Any], message: str) -> None:
    """The bad call raises; what comes after is as with a policy that never saw it."""
    agent = make_agent(name)
    asked, twin = agent.policy(2, mode=mode), agent.policy(2, mode=mode)
    rng = np.random.default_rng(0)
    for step in range(8):
        if step in (1, 6):
            with pytest.raises(ValueError, match=message):
                asked.act(**{**GOOD, **bad})
        call = {**GOOD, "observations": rng.normal(size=(2, 4)), "rewards": rng.normal(size=2)}
        call["dones"] = np.array([False, step == 5])
        assert np.array_equal(asked.act(**call), twin.act(**call))
        assert asked.state_bytes == twin.state_bytes


@ways
@pytest.mark.parametrize(("observations", "message"), BAD_OBSERVATIONS)
def test_bad_observations(name: str, mode: Mode | None, observations: Any, message: str) -> None:
    check_refusal(name, mode, {"observations": observations}, message)


@pytest.mark.parametrize(("name", "mode"), WAYS[:-1])
@pytest.mark.parametrize(("bad", "message"), BAD_OUTCOMES)
def test_bad_rewards_and_dones(
    name: str, mode: Mode | None, bad: dict[str, Any], message: str
) -> None:
    check_refusal(name, mode, bad, message)


@ways
def test_a_bad_first_call_is_no_call(name: str, mode: Mode | None) -> None:
    agent = make_agent(name)
    asked, twin = agent.policy(2, mode=mode), agent.policy(2, mode=mode)
    with pytest.raises(ValueError, match="not finite"):
        asked.act(with_nan(np.nan))
    assert np.array_equal(asked.act(np.ones((2, 4))), twin.act(np.ones((2, 4))))


@pytest.mark.parametrize(("name", "mode"), WAYS[:-1])
def test_what_is_said_at_an_episodes_start_is_not_read(name: str, mode: Mode | None) -> None:
    """The reward that comes with `done` belongs to the episode that is over."""
    agent = make_agent(name)
    one, other = agent.policy(1, mode=mode), agent.policy(1, mode=mode)
    rng = np.random.default_rng(0)
    for step in range(9):
        observation, done = rng.normal(size=(1, 4)), np.array([step == 4])
        reward = np.array([1.0 * step])
        other_reward = np.array([np.nan]) if step in (0, 4) else reward
        assert np.array_equal(
            one.act(observation, reward, done), other.act(observation, other_reward, done)
        )


@pytest.mark.parametrize("name", SEQUENCE_AGENTS)
def test_a_policy_cannot_be_started_in_no_mode_or_without_a_target(name: str) -> None:
    agent = make_agent(name, target_returns=())
    with pytest.raises(UserError, match="--target-return is needed"):
        agent.policy(1)
    assert agent.policy(1, 3.0).act(np.ones((1, 4))).shape == (1, 2)
    with pytest.raises(UserError, match=r"mode must be one of carry, reset.*, got 'walking'"):
        agent.policy(1, 3.0, "walking")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", SEQUENCE_AGENTS)
@pytest.mark.parametrize("targets", [[1.0, 2.0, 3.0], [], [[1.0, 2.0]]])
def test_as_many_targets_as_environments(name: str, targets: list[float]) -> None:
    with pytest.raises(ValueError, match="target"):
        make_agent(name).policy(2, targets)


@pytest.mark.parametrize("name", SEQUENCE_AGENTS)
@pytest.mark.parametrize("target", [np.nan, np.inf, [1.0, np.nan], 1e25, [0.0, -1e308]])
def test_targets_are_finite(name: str, target: float | list[float]) -> None:
    with pytest.raises(UserError, match="target"):
        make_agent(name).policy(2, target)


@pytest.mark.parametrize("name", [*SEQUENCE_AGENTS, "behavior-cloning"])
def test_a_policy_acts_somewhere(name: str) -> None:
    with pytest.raises(UserError, match="num_envs must be at least 1, got 0"):
        make_agent(name).policy(0)
    with pytest.raises(UserError, match="num_envs must be at least 1, got -1"):
        make_agent(name).policy(-1)
    wrong: list[Any] = [1.5, "2"]
    for count in wrong:
        with pytest.raises(UserError, match="num_envs must be a whole number, got"):
            make_agent(name).policy(count)


@pytest.mark.parametrize("mode", ["carry", "reset", "window", "sliding"])
def test_behavior_cloning_has_no_modes(mode: Mode) -> None:
    """A known one means nothing to it, and is not ignored; an unknown one is unknown."""
    agent = make_agent("behavior-cloning")
    with pytest.raises(UserError, match=f"--mode {mode}: behavior-cloning has no memory"):
        agent.policy(1, mode=mode)
    with pytest.raises(UserError, match=r"mode must be one of carry, .*, got 'walking'"):
        agent.policy(1, mode="walking")  # type: ignore[arg-type]


@pytest.mark.parametrize("target", [3.0, 0.0, [1.0, 2.0]])
def test_behavior_cloning_cannot_be_asked_for_a_return(target: Any) -> None:
    agent = make_agent("behavior-cloning")
    with pytest.warns(UserWarning, match=r"behavior-cloning cannot be asked .* \(it is ignored\)"):
        policy = agent.policy(2, target)
    seen = np.ones((2, *agent.spec.observation_space.shape))
    np.testing.assert_array_equal(policy.act(seen), agent.policy(2).act(seen))


def test_agents_say_what_they_are_able_to_do() -> None:
    for name in (*SEQUENCE_AGENTS, "behavior-cloning"):
        agent = make_agent(name)
        cloning = name == "behavior-cloning"
        assert agent.has_memory == agent.asks_return == (not cloning)
        assert agent.tokens_per_step == (1 if cloning else 3)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_observations_may_be_tensors_that_need_gradients(dtype: torch.dtype) -> None:
    seen = torch.ones(2, 4, dtype=dtype, requires_grad=True)
    agent = make_agent("decision-aaren")
    assert np.array_equal(agent.policy(2).act(seen), agent.policy(2).act(np.ones((2, 4))))

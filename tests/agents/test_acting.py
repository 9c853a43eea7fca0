"""Acting step by step equals one parallel pass: every agent, mode, kind of action."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import (
    CONTEXT,
    CONTINUOUS,
    SEQUENCE_AGENTS,
    SPACES,
    TARGET,
    assert_same_actions,
    make_agent,
    play,
)

from aaren_rl.agents import DecisionAgent, Mode
from aaren_rl.errors import UserError

MODES: tuple[Mode, ...] = ("carry", "reset", "window")
agents = pytest.mark.parametrize("name", SEQUENCE_AGENTS)
kinds = pytest.mark.parametrize("kind", sorted(SPACES))
LENGTHS = [[60], [13, 47], [1, 1, 2, 30, 26]]


@agents
@kinds
def test_a_thousand_steps_of_carrying_are_one_parallel_pass(name: str, kind: str) -> None:
    agent = make_agent(name, SPACES[kind])
    played = play(agent, "carry", [[1000], [137, 400, 463], [1, 2, 997]])
    assert played.actions.std() > 0.1  # not the same action all along
    for env in range(3):
        for start, stop in played.episodes(env):
            batch = played.batch(env, start, stop)
            assert_same_actions(agent, batch, played.actions[start:stop, env], slice(None))


@pytest.mark.parametrize("recency", [(0.4,), (0.8, 0.0), (2.0, 0.1)])
def test_carrying_with_heads_that_forget(recency: tuple[float, ...]) -> None:
    agent = make_agent("decision-aaren", heads=len(recency), recency=recency)
    played = play(agent, "carry", [[1000], [137, 400, 463], [1, 2, 997]])
    for env in range(3):
        for start, stop in played.episodes(env):
            batch = played.batch(env, start, stop)
            assert_same_actions(agent, batch, played.actions[start:stop, env], slice(None))


@agents
@kinds
def test_reset_is_a_parallel_pass_over_each_context(name: str, kind: str) -> None:
    agent = make_agent(name, SPACES[kind])
    played = play(agent, "reset", LENGTHS)
    for env in range(3):
        for start, stop in played.episodes(env):
            for first in range(start, stop, CONTEXT):
                last = min(first + CONTEXT, stop)
                batch = played.batch(env, first, last)
                assert_same_actions(agent, batch, played.actions[first:last, env], slice(None))


@agents
@kinds
def test_window_recomputes_the_last_context_at_every_step(name: str, kind: str) -> None:
    agent = make_agent(name, SPACES[kind])
    played = play(agent, "window", LENGTHS)
    for env in range(3):
        for start, stop in played.episodes(env):
            for step in range(start, stop):
                batch = played.batch(env, max(start, step + 1 - CONTEXT), step + 1)
                taken = played.actions[step : step + 1, env]
                assert_same_actions(agent, batch, taken, slice(-1, None))


@agents
def test_modes_agree_within_the_first_context_and_not_after(name: str) -> None:
    agent = make_agent(name)
    carry, reset, window = (play(agent, mode, [[20]] * 2).actions for mode in MODES)
    for other in (reset, window):
        np.testing.assert_allclose(other[:CONTEXT], carry[:CONTEXT], rtol=0, atol=1e-5)
        assert np.abs(other[CONTEXT] - carry[CONTEXT]).max() > 1e-3
    assert np.abs(reset[CONTEXT] - window[CONTEXT]).max() > 1e-3


@agents
@pytest.mark.parametrize("mode", MODES)
def test_a_finished_environment_alone_starts_afresh(name: str, mode: Mode) -> None:
    agent = make_agent(name)
    unbroken = play(agent, mode, [[14]] * 3)
    broken = play(agent, mode, [[14], [7, 7], [14]])  # the same numbers, environment 1 restarts
    assert np.array_equal(unbroken.observations, broken.observations)
    for env in (0, 2):
        np.testing.assert_allclose(
            broken.actions[:, env], unbroken.actions[:, env], rtol=0, atol=1e-6
        )
    assert np.array_equal(broken.actions[:7, 1], unbroken.actions[:7, 1])
    assert np.abs(broken.actions[7:, 1] - unbroken.actions[7:, 1]).max(axis=-1).min() > 1e-3


@agents
@pytest.mark.parametrize("mode", MODES)
def test_environments_do_not_see_each_other(name: str, mode: Mode) -> None:
    """Also each has its own target return."""
    agent = make_agent(name)
    targets = [10.0, 40.0, -5.0]
    together = play(agent, mode, LENGTHS, targets=targets)
    for env in range(3):
        policy = agent.policy(1, targets[env], mode)
        before = np.diff(together.returns_to_go[:, env], append=0)
        for step in range(60):
            starts = together.starts[step, env : env + 1]
            reward = np.zeros(1) if starts[0] else -before[step - 1 : step]
            action = policy.act(together.observations[step, env : env + 1], reward, starts)
            np.testing.assert_allclose(action[0], together.actions[step, env], rtol=0, atol=1e-5)


@agents
@pytest.mark.parametrize("mode", MODES)
def test_targets_and_rewards_matter(name: str, mode: Mode) -> None:
    agent = make_agent(name, target_returns=(TARGET, 1.0))
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(2, 1, 4))

    def second_action(target: float | None, reward: float) -> np.ndarray:
        policy = agent.policy(1, target, mode)
        policy.act(observations[0])
        return policy.act(observations[1], np.array([reward]))

    # what is asked for and what was earned count together
    np.testing.assert_array_equal(second_action(None, 5.0), second_action(TARGET, 5.0))
    assert np.abs(second_action(TARGET, 5.0) - second_action(TARGET, 25.0)).max() > 1e-3
    assert np.abs(second_action(TARGET, 5.0) - second_action(TARGET - 30, 5.0)).max() > 1e-3


@agents
def test_each_agent_has_its_default_mode(name: str) -> None:
    agent = make_agent(name)
    default = {"decision-aaren": "carry", "decision-transformer": "window"}[name]
    one, other = play(agent, None, [[12]]), play(agent, default, [[12]])  # type: ignore[arg-type]
    assert np.array_equal(one.actions, other.actions)
    assert one.state_bytes == other.state_bytes


def test_aarens_acting_state_is_as_large_at_step_10000_as_at_step_1() -> None:
    agent = make_agent("decision-aaren", timestep_embedding="none")
    policy = agent.policy(1)
    rng = np.random.default_rng(0)
    observations, reward = rng.normal(size=(10_000, 1, 4)).astype(np.float32), np.zeros(1)
    sizes = set()
    for step in range(10_000):
        actions = policy.act(observations[step], reward if step else None)
        sizes.add(policy.state_bytes)
    # two layers of u for two heads and w; the last action; time and return-to-go
    assert sizes == {2 * 4 * (2 + 16) + 2 * 4 + 2 * 8}
    assert CONTINUOUS.contains(actions[0])


def test_state_bytes_of_the_other_ways_to_act() -> None:
    def sizes(name: str, mode: Mode, steps: int) -> list[int]:
        return play(make_agent(name), mode, [[steps]]).state_bytes

    numbers = 2 * 8  # time and return-to-go
    window = CONTEXT * (4 * (1 + 4 + 2) + 8) + numbers
    for name in SEQUENCE_AGENTS:
        assert sizes(name, "window", 12) == [window] * 12
    token, action = 2 * 2 * 16 * 4, 2 * 4  # two layers' key and value
    tokens = [2 + 3 * step for step in range(12)]
    assert sizes("decision-transformer", "carry", 12) == [
        token * count + action + numbers for count in tokens
    ]
    assert sizes("decision-transformer", "reset", 12) == [
        token * tokens[step % CONTEXT] + action + numbers for step in range(12)
    ]


@agents
@pytest.mark.parametrize("mode", MODES)
def test_the_learned_timestep_table_ends(name: str, mode: Mode) -> None:
    agent = make_agent(name, max_episode_length=12)
    policy = agent.policy(1, mode=mode)
    observation = np.ones((1, 4))
    for step in range(12):
        policy.act(observation, np.zeros(1) if step else None)
    with pytest.raises(UserError, match=r"13 steps, .* ends at 12: give --max-episode-length 13"):
        policy.act(observation, np.zeros(1))
    assert policy.act(observation, np.zeros(1), np.array([True])).shape == (1, 2)  # a new episode


@agents
def test_the_horizon_is_checked_before_acting(name: str) -> None:
    agent = make_agent(name, max_episode_length=12)
    agent.check_horizon(12, "an episode")
    with pytest.raises(UserError, match=r"^an episode of Hopper-v5 has 1000 steps, .* ends at 12"):
        agent.check_horizon(1000, "an episode of Hopper-v5")
    for embedding in ("sinusoidal", "none"):
        make_agent(name, max_episode_length=12, timestep_embedding=embedding).check_horizon(
            10**9, "an episode"
        )


@agents
@pytest.mark.parametrize("embedding", ["sinusoidal", "none"])
@pytest.mark.parametrize("mode", ["carry", "window"])
def test_without_a_table_there_is_no_last_step(name: str, embedding: str, mode: Mode) -> None:
    agent = make_agent(name, timestep_embedding=embedding, max_episode_length=3)
    played = play(agent, mode, [[40], [31, 9]])
    for env in range(2):
        for start, stop in played.episodes(env):
            if mode == "carry":
                batch = played.batch(env, start, stop)
                assert_same_actions(agent, batch, played.actions[start:stop, env], slice(None))
            else:
                batch = played.batch(env, stop - CONTEXT, stop)
                taken = played.actions[stop - 1 : stop, env]
                assert_same_actions(agent, batch, taken, slice(-1, None))


@agents
def test_what_the_timestep_embeddings_say(name: str) -> None:
    steps = torch.tensor([[0, 1, 7, 10**6]])

    def embedded(kind: str) -> torch.Tensor:
        agent = make_agent(name, timestep_embedding=kind)
        assert isinstance(agent, DecisionAgent)
        out: torch.Tensor = agent.embed_timestep(steps)
        return out

    assert (embedded("none") == 0).all()
    rates = 1e4 ** (-np.arange(0, 16, 2) / 16)
    angles = steps.numpy()[..., None] * rates
    wanted = np.concatenate([np.sin(angles), np.cos(angles)], axis=-1)
    np.testing.assert_allclose(embedded("sinusoidal").numpy(), wanted, rtol=0, atol=1e-7)


@agents
@pytest.mark.parametrize("mode", MODES)
def test_observations_of_any_shape_are_flattened(name: str, mode: Mode) -> None:
    flat = make_agent(name, observation_space=gym.spaces.Box(-9, 9, (6,), np.float64))
    shaped = make_agent(name, observation_space=gym.spaces.Box(-9, 9, (2, 3), np.float64))
    one, other = play(flat, mode, LENGTHS), play(shaped, mode, LENGTHS)
    assert other.observations.shape == (60, 3, 2, 3)
    assert np.array_equal(one.observations.reshape(-1), other.observations.reshape(-1))
    assert np.array_equal(one.actions, other.actions)


@agents
@pytest.mark.parametrize("mode", MODES)
def test_policies_of_one_agent_do_not_disturb_each_other(name: str, mode: Mode) -> None:
    agent = make_agent(name)
    alone = play(agent, mode, [[12]]).actions
    first, second = agent.policy(1, mode=mode), agent.policy(2, mode=mode)
    played = play(agent, mode, [[12]])
    for step in range(12):
        reward = None
        if step:
            reward = played.returns_to_go[step - 1] - played.returns_to_go[step]
        action = first.act(played.observations[step], reward)
        second.act(np.ones((2, 4)), np.ones(2) if step else None)
        np.testing.assert_allclose(action, alone[step], rtol=0, atol=1e-6)


@agents
def test_acting_turns_dropout_off(name: str) -> None:
    agent = make_agent(name, dropout=0.5)
    agent.train()
    assert np.array_equal(play(agent, "carry", [[9]]).actions, play(agent, "carry", [[9]]).actions)
    assert not agent.training

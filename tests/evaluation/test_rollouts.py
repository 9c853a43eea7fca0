"""Acting in vector environments gives the episodes that a plain loop gives."""

from __future__ import annotations

import gymnasium as gym
import numpy as np
import pytest
from evaluation_cases import ECHO, ECHO_LIMIT, Echo, agent_for, play_alone

from aaren_rl.agents import Agent, Mode
from aaren_rl.envs import Step
from aaren_rl.errors import UserError
from aaren_rl.evaluation import rollout

MODES: tuple[Mode, ...] = ("carry", "reset", "window")


@pytest.mark.parametrize("num_envs", [1, 2, 3, 7, 16, None])
@pytest.mark.parametrize("episodes", [1, 7, 20])
def test_each_episode_has_its_own_seed_and_is_counted_once(
    episodes: int, num_envs: int | None
) -> None:
    Echo.seeds.clear()
    played = rollout(
        agent_for(ECHO), ECHO, episodes=episodes, seed=100, num_envs=num_envs, mode="carry"
    )
    seeds = np.arange(100, 100 + episodes)
    assert played.lengths.tolist() == (1 + seeds % 7).tolist()
    assert played.returns.tolist() == (seeds * (1 + seeds % 7)).tolist()
    assert set(Echo.seeds) == set(seeds.tolist())
    # All but the first are begun once; the first also fills environments that have nothing to do.
    assert all(Echo.seeds.count(seed) == 1 for seed in seeds[1:])


def test_environments_in_processes_of_their_own() -> None:
    played = rollout(
        agent_for(ECHO), ECHO, episodes=5, seed=3, num_envs=2, asynchronous=True, mode="window"
    )
    seeds = np.arange(3, 8)
    assert played.lengths.tolist() == (1 + seeds % 7).tolist()
    assert played.returns.tolist() == (seeds * (1 + seeds % 7)).tolist()


def test_stops_and_closes_when_told() -> None:
    class Enough(Exception):
        pass

    calls = []

    def on_step() -> None:
        calls.append(1)
        if len(calls) == 3:
            raise Enough

    agent = agent_for(ECHO)
    closed = next(Echo.closed)
    with pytest.raises(Enough):
        rollout(agent, ECHO, episodes=9, seed=6, num_envs=2, on_step=on_step)
    assert len(calls) == 3
    assert next(Echo.closed) == closed + 3  # two environments between the two counts


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_cartpole_is_a_plain_loop(name: str, mode: Mode) -> None:
    """Discrete actions and many restarts: 9 episodes in 4 environments."""
    agent = agent_for("CartPole-v1", name, seed=4)
    returns, lengths = play_alone(agent, "CartPole-v1", list(range(50, 59)), 150.0, mode)
    assert len(set(lengths)) > 3
    for num_envs in (1, 4, 9):
        played = rollout(
            agent,
            "CartPole-v1",
            episodes=9,
            seed=50,
            num_envs=num_envs,
            target_return=150.0,
            mode=mode,
        )
        assert played.lengths.tolist() == lengths
        assert played.returns.tolist() == returns


@pytest.mark.parametrize("mode", ["carry", "window"])
def test_pendulum_is_a_plain_loop(mode: Mode) -> None:
    """Continuous actions with bounds of 2, 200 steps, an end by the time limit alone."""
    agent = agent_for("Pendulum-v1")
    returns, lengths = play_alone(agent, "Pendulum-v1", [7, 8, 9], None, mode)
    played = rollout(agent, "Pendulum-v1", episodes=3, seed=7, num_envs=2, mode=mode)
    assert played.lengths.tolist() == lengths == [200] * 3
    np.testing.assert_allclose(played.returns, returns, rtol=1e-4)


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer", "behavior-cloning"])
def test_hopper_is_a_plain_loop(name: str) -> None:
    agent = agent_for("Hopper-v5", name)
    returns, lengths = play_alone(agent, "Hopper-v5", list(range(5)), None, None)
    for num_envs in (1, 2, 5):
        played = rollout(agent, gym.spec("Hopper-v5"), episodes=5, num_envs=num_envs)
        assert played.lengths.tolist() == lengths
        np.testing.assert_allclose(played.returns, returns, rtol=1e-3)


def test_the_target_return_is_asked_for() -> None:
    agent = agent_for("Hopper-v5")
    own, same, other = (
        rollout(agent, "Hopper-v5", episodes=2, target_return=target).returns
        for target in (None, 200.0, 20.0)
    )
    assert own.tolist() == same.tolist()
    assert own.tolist() != other.tolist()


def test_time_is_accounted_for() -> None:
    played = rollout(agent_for(ECHO), ECHO, episodes=14, seed=0, num_envs=2)
    assert played.vector_steps >= 28  # 56 steps in two environments
    assert played.policy_seconds > 0
    assert played.environment_seconds > 0


def never(agent: Agent) -> Agent:
    """The same agent, which must not be asked for a policy."""

    def policy(*_: object) -> None:
        raise AssertionError("the agent acts")

    agent.policy = policy  # type: ignore[method-assign, assignment]
    return agent


def test_the_horizon_is_checked_before_any_step() -> None:
    with pytest.raises(
        UserError, match=rf"an episode of {ECHO} has {ECHO_LIMIT} steps, .* ends at 49"
    ):
        rollout(never(agent_for(ECHO, max_episode_length=49)), ECHO, episodes=1)
    agent = agent_for(ECHO, max_episode_length=50)
    assert rollout(agent, ECHO, episodes=1).lengths.tolist() == [1]
    agent = agent_for(ECHO, max_episode_length=1, timestep_embedding="none")
    assert rollout(agent, ECHO, episodes=1).lengths.tolist() == [1]


def test_another_environment_is_refused_before_any_step() -> None:
    hopper = never(agent_for("Hopper-v5"))
    with pytest.raises(UserError, match=r"observations: .* has 17 values, .* has 11;"):
        rollout(hopper, "HalfCheetah-v5", episodes=1)
    cartpole = never(agent_for("CartPole-v1"))
    with pytest.raises(UserError, match=r"observations: .* has 3 values, .* has 4;"):
        rollout(cartpole, "Pendulum-v1", episodes=1)
    with pytest.raises(UserError, match=r"actions: the environment takes Discrete\(3\)"):
        rollout(never(agent_for("MountainCarContinuous-v0")), "MountainCar-v0", episodes=1)
    with pytest.raises(UserError, match="environment 'Hoper-v5': "):
        rollout(hopper, "Hoper-v5", episodes=1)


class Grid(Echo):
    observation_space = gym.spaces.Box(-1, 1, (2, 2), np.float32)

    def reset(self, *, seed=None, options=None):  # type: ignore[no-untyped-def]
        return np.zeros((2, 2), np.float32), super().reset(seed=seed, options=options)[1]


def test_observations_of_another_shape_are_the_users_mistake() -> None:
    """As many numbers, but who knows in which order."""
    name = "aaren-rl-tests/Grid-v0"
    if name not in gym.registry:
        gym.register(name, Grid, max_episode_steps=9)
    with pytest.raises(UserError, match=r"shape \(2, 2\), the data's \(4,\)"):
        rollout(agent_for(ECHO), name, episodes=1)


class Broken(Echo):
    def step(self, action):  # type: ignore[no-untyped-def]
        return np.full(4, np.nan, np.float32), 0.0, False, False, {}


def test_an_environment_that_breaks_down_is_said_in_one_line() -> None:
    name = "aaren-rl-tests/Broken-v0"
    if name not in gym.registry:
        gym.register(name, Broken, max_episode_steps=9)
    with pytest.raises(UserError, match=r"Broken-v0: observation nan in episode 0 \(seed 1\)"):
        rollout(agent_for(ECHO), name, episodes=1, seed=1)


class Endless(Echo):
    def step(self, action):  # type: ignore[no-untyped-def]
        return np.zeros(4, np.float32), 1.0, False, False, {}


def test_episodes_that_do_not_end_are_cut_and_it_is_said() -> None:
    agent = agent_for(ECHO, timestep_embedding="none", layers=1)
    with pytest.warns(UserWarning, match=r"Endless: episodes are cut after 1000 steps"):
        played = rollout(agent, Endless, episodes=2, mode="carry")
    assert played.lengths.tolist() == [1000, 1000]


def test_a_recorder_gets_every_step() -> None:
    steps: list[Step] = []
    played = rollout(agent_for(ECHO), ECHO, episodes=5, num_envs=2, recorder=steps.append)
    rewards = np.zeros(5)
    for step in steps:
        live = step.episodes >= 0
        np.add.at(rewards, step.episodes[live], step.rewards[live])
    np.testing.assert_array_equal(rewards, played.returns)
    assert len(steps) == played.vector_steps


@pytest.mark.filterwarnings("ignore:overflow")
def test_infinite_returns_are_refused() -> None:
    class Rich(Echo):
        def step(self, action):  # type: ignore[no-untyped-def]
            seen, _, *rest = super().step(action)
            return seen, 1e308, *rest

    with pytest.raises(UserError, match=r"Rich: reward 1e\+308 in episode 0 \(seed 0\)"):
        rollout(agent_for(ECHO), Rich, episodes=5, seed=0)

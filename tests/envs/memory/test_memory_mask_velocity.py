from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.envs.registration import EnvSpec

from aaren_rl.data import Trajectory, TrajectoryDataset, load_trajectories
from aaren_rl.data.mask_velocity import mask_velocity
from aaren_rl.envs import check_environment, environment_of, make_vector_env
from aaren_rl.envs.memory.mask_velocity import MaskVelocity
from aaren_rl.errors import UserError

ROBOTS = {"Hopper": 5, "HalfCheetah": 8, "Walker2d": 8}


@pytest.mark.parametrize("options", [{}, {"exclude_current_positions_from_observation": False}])
@pytest.mark.parametrize("robot", ROBOTS)
def test_shows_the_positions_and_nothing_else(robot: str, options: dict[str, Any]) -> None:
    env = gymnasium.make(f"aaren/MaskVelocity{robot}-v5", **options)
    skipped = 0 if options else 1
    size = ROBOTS[robot] + 1 - skipped
    assert env.observation_space.shape == (size,)
    observation, _ = env.reset(seed=1)
    actions = np.random.default_rng(0).uniform(-1, 1, (20, *env.action_space.shape))
    for action in actions.astype(np.float32):
        state = env.unwrapped.data.qpos
        np.testing.assert_array_equal(observation, state[skipped:])
        assert observation in env.observation_space
        observation, _, terminated, _, _ = env.step(action)
        if terminated:
            observation, _ = env.reset()
    env.close()


@pytest.mark.parametrize("robot", ROBOTS)
def test_the_converted_data_are_what_the_wrapper_shows(robot: str) -> None:
    """One episode recorded in the plain robot and converted, and again seen through the wrapper."""
    plain = gymnasium.make(f"{robot}-v5")
    masked = gymnasium.make(f"aaren/MaskVelocity{robot}-v5")
    actions = np.random.default_rng(0).uniform(-1, 1, (30, *plain.action_space.shape))
    rows: tuple[list, list] = ([plain.reset(seed=5)[0]], [masked.reset(seed=5)[0]])
    rewards: tuple[list, list] = ([], [])
    for action in actions.astype(np.float32):
        for env, seen, earned in zip((plain, masked), rows, rewards, strict=True):
            observation, reward, terminated, _, _ = env.step(action)
            seen.append(observation)
            earned.append(reward)
        if terminated:
            break
    assert rewards[0] == rewards[1]
    steps = len(rewards[0])
    recorded = TrajectoryDataset.from_episodes(
        [Trajectory(np.stack(rows[0]), actions[:steps], np.array(rewards[0]), False, True)],
        name="recorded",
        observation_space=plain.observation_space,
        action_space=plain.action_space,
        env_spec=gymnasium.spec(f"{robot}-v5"),
    )
    converted = mask_velocity(recorded)
    assert converted.observation_space == masked.observation_space
    expected = np.stack(rows[1])[:steps].astype(np.float32)
    np.testing.assert_array_equal(converted.observations, expected)
    plain.close()
    masked.close()


def test_data_lead_to_their_environment() -> None:
    """By way of JSON, as an agent keeps it."""
    data = load_trajectories("mask-velocity:aaren-rl/hopper-small-v0")
    environment = environment_of(data)
    assert isinstance(environment, EnvSpec)
    again = EnvSpec.from_json(environment.to_json())
    assert again == environment
    env = make_vector_env(again, 2)
    check_environment(env, data.observation_space, data.action_space)
    assert env.reset(seed=[0, 1])[0].shape == (2, 5)
    assert env.spec.max_episode_steps == 1000
    env.close()


def test_wrapped_by_hand_it_can_be_made_again() -> None:
    env = MaskVelocity(gymnasium.make("Walker2d-v5"))
    again = gymnasium.make(env.spec)
    np.testing.assert_array_equal(env.reset(seed=3)[0], again.reset(seed=3)[0])
    assert again.observation_space.shape == (8,)


@pytest.mark.parametrize("environment", ["Ant-v5", "CartPole-v1"])
def test_unknown_layouts_are_refused(environment: str) -> None:
    with pytest.raises(UserError, match="positions, then its velocities"):
        MaskVelocity(gymnasium.make(environment))

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import Trajectory, TrajectoryDataset
from aaren_rl.envs import check_environment, environment_of, make_vector_env
from aaren_rl.envs.d4rl_ant import D4RL_ANT


def test_shows_ants_body_and_no_forces() -> None:
    body = gymnasium.make("Ant-v5", contact_cost_weight=0.0)
    env = gymnasium.make(D4RL_ANT)
    actions = np.random.default_rng(0).uniform(-1, 1, (50, 8)).astype(np.float32)
    first, theirs = env.reset(seed=3)[0], body.reset(seed=3)[0]
    for action in actions:
        assert first.shape == (111,)
        np.testing.assert_array_equal(first[:27], theirs[:27])
        assert not first[27:].any()
        first, reward, terminated, truncated, _ = env.step(action)
        theirs, expected, *ends, _ = body.step(action)
        assert reward == expected
        assert [terminated, truncated] == ends
    assert first in env.observation_space
    env.close()
    body.close()


def test_stops_after_a_thousand_steps() -> None:
    env = gymnasium.make(D4RL_ANT)
    env.reset(seed=0)
    steps, terminated, truncated = 0, False, False
    while not (terminated or truncated):
        _, _, terminated, truncated, _ = env.step(np.zeros(8, np.float32))
        steps += 1
    env.close()
    assert (steps, terminated, truncated) == (1000, False, True)


@pytest.mark.parametrize(("force", "expected"), [(0.0, D4RL_ANT), (0.5, "Ant-v5")])
def test_the_data_decide(force: float, expected: str) -> None:
    observations = np.full((4, 111), force)
    observations[:, :27] = np.random.default_rng(0).normal(size=(4, 27))
    data = TrajectoryDataset.from_episodes(
        [Trajectory(observations, np.zeros((4, 8)), np.ones(4), True, False)],
        name="ant-medium-v2",
        observation_space=spaces.Box(-np.inf, np.inf, (111,)),
        action_space=spaces.Box(-1, 1, (8,)),
    )
    assert environment_of(data) == expected
    if expected == D4RL_ANT:
        env = make_vector_env(expected, 2)
        check_environment(env, data.observation_space, data.action_space)
        env.close()

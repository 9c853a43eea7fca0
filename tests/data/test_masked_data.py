from __future__ import annotations

from dataclasses import replace

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import Trajectory, TrajectoryDataset, load_trajectories
from aaren_rl.data.mask_velocity import mask_velocity
from aaren_rl.errors import UserError

SHIPPED_ID = "aaren-rl/hopper-small-v0"


def test_a_prefix_takes_the_velocities_out(shipped: TrajectoryDataset) -> None:
    masked = load_trajectories(f"mask-velocity:{SHIPPED_ID}")
    assert masked.name == f"mask-velocity:{SHIPPED_ID}"
    assert masked.observations.shape == (shipped.num_steps, 5)
    np.testing.assert_array_equal(masked.observations, shipped.observations[:, :5])
    assert masked.observation_space == spaces.Box(-np.inf, np.inf, (5,), np.float32)
    for field in ("actions", "rewards", "returns_to_go", "offsets", "reference_scores"):
        np.testing.assert_array_equal(getattr(masked, field), getattr(shipped, field))
    assert masked.env_spec == gymnasium.spec("aaren/MaskVelocityHopper-v5")
    mean, std = masked.observation_statistics()
    assert mean.shape == std.shape == (5,)


def robot_data(name: str, size: int) -> TrajectoryDataset:
    observations = np.random.default_rng(0).normal(size=(4, size))
    return TrajectoryDataset.from_episodes(
        [Trajectory(observations, np.zeros((4, 3)), np.ones(4), True, False)],
        name=name,
        observation_space=spaces.Box(-np.inf, np.inf, (size,)),
        action_space=spaces.Box(-1, 1, (3,)),
    )


@pytest.mark.parametrize(
    ("name", "size", "positions", "environment"),
    [
        ("hopper-medium-v2", 11, 5, "Hopper"),
        ("hopper-medium-v2", 12, 6, "Hopper"),
        ("mujoco-zoo/halfcheetah/medium-v0", 17, 8, "HalfCheetah"),
        ("walker2d_medium-v2", 17, 8, "Walker2d"),
    ],
)
def test_a_name_is_enough(name: str, size: int, positions: int, environment: str) -> None:
    data = robot_data(name, size)
    masked = mask_velocity(data)
    np.testing.assert_array_equal(masked.observations, data.observations[:, :positions])
    assert masked.env_spec == gymnasium.spec(f"aaren/MaskVelocity{environment}-v5")


def test_the_environments_options_and_version_stay(shipped: TrajectoryDataset) -> None:
    spec = replace(
        gymnasium.spec("Hopper-v4"), kwargs={"reset_noise_scale": 0.1}, max_episode_steps=77
    )
    masked = mask_velocity(replace(shipped, env_spec=spec)).env_spec
    assert masked is not None
    assert masked.id == "aaren/MaskVelocityHopper-v4"
    assert (masked.kwargs, masked.max_episode_steps) == ({"reset_noise_scale": 0.1}, 77)
    assert [wrapper.name for wrapper in masked.additional_wrappers] == ["MaskVelocity"]


def test_other_data_are_refused(shipped: TrajectoryDataset) -> None:
    with pytest.raises(UserError, match="hopper, halfcheetah, walker2d expected"):
        mask_velocity(robot_data("ant-medium-v2", 27))
    with pytest.raises(UserError, match="17 values an observation; hopper's 11"):
        mask_velocity(robot_data("hopper-medium-v2", 17))
    with pytest.raises(UserError, match="mask-velocity:mask-velocity:"):
        load_trajectories(f"mask-velocity:mask-velocity:{SHIPPED_ID}")
    with pytest.raises(UserError, match="no such file"):
        load_trajectories("mask-velocity:nothing.hdf5")

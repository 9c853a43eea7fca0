from __future__ import annotations

from dataclasses import replace

import gymnasium
import pytest
from gymnasium.envs.registration import EnvSpec, WrapperSpec

import aaren_rl.envs  # noqa: F401  (registers the environments)
from aaren_rl.robots import ROBOTS, reference_scores, robot_named, robot_of

NAMES = {
    "mujoco-zoo/hopper/medium-v0": ("hopper", 3600.0),
    "aaren-rl/hopper-small-v0": ("hopper", 3600.0),
    "hopper-medium-v2": ("hopper", 3600.0),
    "hopper_medium-v2": ("hopper", 3600.0),
    "mask-velocity:hopper-medium-v2": ("hopper", 3600.0),
    "Hopper-v5": ("hopper", 3600.0),
    "Hopper-v4": ("hopper", 3600.0),
    "hopper": ("hopper", 3600.0),
    "mujoco/halfcheetah/medium-v0": ("halfcheetah", 6000.0),
    "halfcheetah-medium-replay-v2": ("halfcheetah", 6000.0),
    "halfcheetah-medium-expert-v2": ("halfcheetah", 12000.0),
    "mujoco/halfcheetah/expert-v0": ("halfcheetah", 12000.0),
    "walker2d-medium-v2": ("walker2d", 5000.0),
    "ant-medium-v2": ("ant", 6000.0),
}
OTHERS = [
    "CartPole-v1",
    "D4RL/antmaze/umaze-v1",
    "bullet-hopper-medium-v0",
    "D4RL/door/human-v2",
    "dmcontrol/hopper-hop-v0",
    "dmcontrol/hopper/hop-v0",
    "insects/grass-hopper-v0",
    "hopper-stand-v0",
    "gallant-v0",
    "elephant-v0",
]


@pytest.mark.parametrize("name", NAMES)
def test_names_of_robots(name: str) -> None:
    robot = robot_named(name)
    assert robot is not None
    assert (robot.name, robot.target_for(name)) == NAMES[name]
    assert reference_scores(name) == robot.reference_scores


@pytest.mark.parametrize("name", OTHERS)
def test_names_of_others(name: str) -> None:
    assert robot_named(name) is None
    assert reference_scores(name) is None


def test_the_table_is_d4rls_and_gymnasiums() -> None:
    assert {robot.environment for robot in ROBOTS.values()} <= set(gymnasium.registry)
    assert ROBOTS["hopper"].reference_scores == (-20.272305, 3234.3)
    assert ROBOTS["halfcheetah"].reference_scores == (-280.178953, 12135.0)
    assert ROBOTS["walker2d"].reference_scores == (1.629008, 4592.3)
    assert ROBOTS["ant"].reference_scores == (-325.6, 3879.7)
    for robot in ROBOTS.values():
        env = gymnasium.make(robot.environment)
        assert env.observation_space.shape[0] in robot.observation_sizes
        assert env.action_space.shape == (robot.action_size,)
        env.close()


REWARD = WrapperSpec("NormalizeReward", "gymnasium.wrappers:NormalizeReward", {})
STICKY = WrapperSpec("StickyAction", "gymnasium.wrappers:StickyAction", {})
RECORD = WrapperSpec("RecordVideo", "gymnasium.wrappers:RecordVideo", {})


class Scaled(gymnasium.ObservationWrapper):
    """Changes observations alone."""


class PaidTenfold(gymnasium.Wrapper):
    """Its name says nothing that this library knows."""


OWN = tuple(
    WrapperSpec(kind.__name__, f"{__name__}:{kind.__name__}", {}) for kind in (Scaled, PaidTenfold)
)


@pytest.mark.parametrize(
    "spec",
    [
        gymnasium.spec("Hopper-v5"),
        gymnasium.spec("Hopper-v4"),
        gymnasium.spec("aaren/MaskVelocityHopper-v5"),
        replace(gymnasium.spec("Hopper-v5"), kwargs={"reset_noise_scale": 0.1}),
        replace(gymnasium.spec("Hopper-v5"), additional_wrappers=(RECORD, OWN[0])),
        replace(gymnasium.spec("Hopper-v5"), max_episode_steps=100),
    ],
)
def test_environments_that_are_the_robots(spec: EnvSpec) -> None:
    assert robot_of("hopper-medium-v2", spec) is ROBOTS["hopper"]
    assert robot_of("walker2d-medium-v2", spec) is None
    assert robot_of("my-own-data", spec) is None


@pytest.mark.parametrize(
    "spec",
    [
        EnvSpec("Line-v0", entry_point="my_module:Line"),
        EnvSpec("Hopper-v0", entry_point="my_module:Hopper"),
        gymnasium.spec("Pendulum-v1"),
        replace(gymnasium.spec("Hopper-v5"), kwargs={"forward_reward_weight": 10.0}),
        replace(gymnasium.spec("Hopper-v5"), kwargs={"frame_skip": 8}),
        replace(gymnasium.spec("Hopper-v5"), kwargs={"terminate_when_unhealthy": False}),
        replace(gymnasium.spec("Hopper-v5"), additional_wrappers=(REWARD,)),
        replace(gymnasium.spec("Hopper-v5"), additional_wrappers=(STICKY,)),
        replace(gymnasium.spec("Hopper-v5"), additional_wrappers=(OWN[1],)),
    ],
)
def test_environments_that_only_sound_like_it(spec: EnvSpec) -> None:
    assert robot_of("mujoco/hopper/medium-v0", spec) is None
    assert reference_scores("mujoco/hopper/medium-v0", spec) is None


def test_without_an_environment_the_sizes_decide() -> None:
    assert robot_of("hopper-medium-v2", sizes=(11, 3)) is ROBOTS["hopper"]
    assert robot_of("hopper-medium-v2", sizes=(15, 4)) is None
    assert robot_of("ant-medium-v2", sizes=(111, 8)) is ROBOTS["ant"]

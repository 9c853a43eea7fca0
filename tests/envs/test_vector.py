from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.envs import (
    check_environment,
    environment_of,
    environment_spec,
    make_vector_env,
)
from aaren_rl.errors import UserError


@pytest.fixture(scope="module")
def shipped() -> TrajectoryDataset:
    return load_trajectories("aaren-rl/hopper-small-v0")


def roll(env: Any, actions: np.ndarray) -> np.ndarray:
    return np.stack([env.step(action)[0] for action in actions])


@pytest.mark.parametrize("asynchronous", [False, True])
def test_one_seed_an_environment_and_always_the_same(asynchronous: bool) -> None:
    actions = np.random.default_rng(0).uniform(-1, 1, (5, 3, 3)).astype(np.float32)
    env = make_vector_env("Hopper-v5", 3, asynchronous=asynchronous)
    first, _ = env.reset(seed=[7, 8, 7])
    path = roll(env, actions)
    again, _ = env.reset(seed=[7, 8, 7])
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(path, roll(env, actions))
    np.testing.assert_array_equal(first[0], first[2])
    assert not np.array_equal(first[0], first[1])
    env.close()

    alone = gymnasium.make("Hopper-v5")
    observation, _ = alone.reset(seed=8)
    np.testing.assert_array_equal(observation, first[1])
    np.testing.assert_array_equal(path[:, 1], [alone.step(a)[0] for a in actions[:, 1]])
    alone.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_a_masked_reset_restarts_that_environment_alone(asynchronous: bool) -> None:
    actions = np.random.default_rng(1).uniform(-1, 1, (6, 3, 3)).astype(np.float32)
    env = make_vector_env("Hopper-v5", 3, asynchronous=asynchronous)
    env.reset(seed=[1, 2, 3])
    undisturbed = roll(env, actions)

    env.reset(seed=[1, 2, 3])
    before = roll(env, actions[:3])[-1]
    mask = np.array([False, True, False])
    after, _ = env.reset(seed=[None, 40, None], options={"reset_mask": mask})
    rest = roll(env, actions[3:])
    env.close()
    np.testing.assert_array_equal(after[[0, 2]], before[[0, 2]])
    np.testing.assert_array_equal(rest[:, [0, 2]], undisturbed[3:, [0, 2]])

    alone = gymnasium.make("Hopper-v5")
    np.testing.assert_array_equal(after[1], alone.reset(seed=40)[0])
    np.testing.assert_array_equal(rest[:, 1], [alone.step(a)[0] for a in actions[3:, 1]])
    alone.close()


def test_a_finished_environment_waits_for_its_reset() -> None:
    env = make_vector_env("Hopper-v5", 1)
    env.reset(seed=[0])
    for _ in range(1000):
        final, _, terminated, truncated, _ = env.step(np.ones((1, 3), np.float32))
        if terminated[0] or truncated[0]:
            break
    assert terminated[0]
    assert np.abs(final[0, 1:]).max() > 0.1  # a new episode begins within 0.005 of zero
    with pytest.raises(AssertionError):
        env.step(np.ones((1, 3), np.float32))
    env.close()


@pytest.mark.parametrize("environment", ["HalfCheetah-v5", gymnasium.spec("HalfCheetah-v5")])
def test_mujoco_is_quiet_and_leaves_no_log(
    environment: Any,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    env = make_vector_env(environment, 2)
    env.reset(seed=[0, 1])
    env.step(env.action_space.sample())
    env.close()
    assert capfd.readouterr() == ("", "")
    assert not list(tmp_path.iterdir())


def test_render_mode_is_passed_on() -> None:
    for mode in (None, "rgb_array"):
        env = make_vector_env("Hopper-v5", 1, render_mode=mode)
        assert env.render_mode == mode
        env.close()


def test_no_environments_are_refused() -> None:
    with pytest.raises(UserError, match="at least 1"):
        make_vector_env("Hopper-v5", 0)


@pytest.mark.parametrize(
    "environment", ["Hoper-v5", "Hopper-v99", "no_such_module:Env-v0", "a/b/c", ""]
)
def test_unknown_environments_are_named_in_one_line(environment: str) -> None:
    with pytest.raises(UserError) as caught:
        make_vector_env(environment, 1)
    assert repr(environment) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_specification_that_leads_nowhere() -> None:
    spec = replace(gymnasium.spec("Hopper-v5"), entry_point="no_such_module:Env")
    with pytest.raises(UserError, match="no_such_module"):
        make_vector_env(spec, 1)


def test_the_datasets_environment(shipped: TrajectoryDataset) -> None:
    assert environment_of(shipped) == gymnasium.spec("Hopper-v5")
    assert environment_of(replace(shipped, env_spec=None)) == "Hopper-v5"
    with pytest.raises(UserError, match=r"'unheard-of'.*--environment"):
        environment_of(replace(shipped, env_spec=None, name="unheard-of"))


def test_data_and_environment_must_fit(shipped: TrajectoryDataset) -> None:
    hopper = make_vector_env(environment_of(shipped), 2)
    check_environment(hopper, shipped.observation_space, shipped.action_space)
    with pytest.raises(UserError, match=r"observations:.*\(11,\).*11 values.*\(17,\).* 17"):
        check_environment(hopper, spaces.Box(-1, 1, (17,)), shipped.action_space)
    with pytest.raises(UserError, match=r"actions:.*\(3,\).*\(6,\)"):
        check_environment(hopper, shipped.observation_space, spaces.Box(-1, 1, (6,)))
    with pytest.raises(UserError, match=r"actions:.*Discrete\(3\)"):
        check_environment(hopper, shipped.observation_space, spaces.Discrete(3))
    hopper.close()


def test_options_behind_the_name() -> None:
    spec = environment_spec("Hopper-v5?reset_noise_scale=0.5&terminate_when_unhealthy=false")
    assert spec.kwargs == {"reset_noise_scale": 0.5, "terminate_when_unhealthy": False}
    assert environment_spec("Hopper-v5") == gymnasium.spec("Hopper-v5")
    assert not gymnasium.spec("Hopper-v5").kwargs
    text = environment_spec("Hopper-v5?xml_file=hopper.xml&length=[5,120]")
    assert text.kwargs == {"xml_file": "hopper.xml", "length": [5, 120]}
    env = make_vector_env("Hopper-v5?reset_noise_scale=0.5", 2)
    assert np.abs(env.reset(seed=[0, 1])[0]).max() > 0.3
    env.close()


@pytest.mark.parametrize("options", ["length", "=3", "a=1&&b=2"])
def test_options_without_a_value(options: str) -> None:
    with pytest.raises(UserError, match="key=value expected"):
        environment_spec(f"Hopper-v5?{options}")


def test_unknown_options_are_named() -> None:
    with pytest.raises(UserError, match=r"Hopper-v5\?colour=3.*colour"):
        make_vector_env("Hopper-v5?colour=3", 1)


def test_ours_step_in_batches_and_others_do_not() -> None:
    """CartPole has a vector form of its own, which cannot be restarted by seed and mask."""
    env = make_vector_env("aaren/PassiveTMaze-v0", 2)
    assert type(env).__name__ == "VectorPassiveTMaze"
    env = make_vector_env("CartPole-v1", 2)
    assert isinstance(env, gymnasium.vector.SyncVectorEnv)
    env.close()
    env = make_vector_env("aaren/PassiveTMaze-v0?length=5", 2, asynchronous=True)
    batch = make_vector_env("aaren/PassiveTMaze-v0?length=5", 2)
    np.testing.assert_array_equal(env.reset(seed=[3, 4])[0], batch.reset(seed=[3, 4])[0])
    env.close()

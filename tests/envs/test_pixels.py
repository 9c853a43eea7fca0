"""Environments seen as rendered frames."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest
from env_cases import Line
from gymnasium import spaces

from aaren_rl.envs import (
    Pixels,
    environment_spec,
    make_env,
    make_vector_env,
    saved_name,
    time_limit,
)
from aaren_rl.errors import UserError

CARTPOLE = "aaren/Pixels-v0?env=CartPole-v1&size=32"


def test_frames_are_the_rendered_ones_made_smaller() -> None:
    env, plain = make_env(CARTPOLE), make_env("CartPole-v1", render_mode="rgb_array")
    both = make_env(f"{CARTPOLE}&numbers=true&color=true")
    assert env.observation_space == spaces.Box(0, 255, (32, 32, 1), np.uint8)
    assert env.action_space == plain.action_space
    assert time_limit(env) == 500
    frame, _ = env.reset(seed=3)
    numbers, _ = plain.reset(seed=3)
    seen, _ = both.reset(seed=3)
    first = frame
    for action in (0, 0, 1, 0, 0):
        assert env.observation_space.contains(frame)
        assert both.observation_space.contains(seen)
        np.testing.assert_array_equal(seen["numbers"], numbers)
        drawn = plain.render()
        assert frame.mean() == pytest.approx(np.mean(drawn), abs=1)
        np.testing.assert_allclose(seen["pixels"].mean((0, 1)), np.mean(drawn, (0, 1)), atol=1)
        frame, *rest = env.step(action)
        numbers, *wanted = plain.step(action)
        seen, *_ = both.step(action)
        assert rest[:3] == wanted[:3]
    assert not np.array_equal(frame, first)
    for each in (env, plain, both):
        each.close()


def test_the_last_frames_are_seen_together() -> None:
    env, both = make_env(CARTPOLE), make_env(f"{CARTPOLE}&stack=3")
    assert both.observation_space.shape == (32, 32, 3)
    for seed in (0, 1):
        frames = [env.reset(seed=seed)[0]] * 3
        np.testing.assert_array_equal(both.reset(seed=seed)[0], np.concatenate(frames, -1))
        for action in (1, 1, 0):
            frames = [*frames[1:], env.step(action)[0]]
            np.testing.assert_array_equal(both.step(action)[0], np.concatenate(frames, -1))
    for each in (env, both):
        each.close()


def test_it_can_be_made_again_from_what_is_saved_and_in_a_vector() -> None:
    spec = environment_spec(CARTPOLE)
    name = saved_name(spec)
    assert isinstance(name, str)
    vector = make_vector_env(name, 2)
    frames, _ = vector.reset(seed=[1, 1])
    assert frames.shape == (2, 32, 32, 1)
    np.testing.assert_array_equal(frames[0], frames[1])
    vector.close()
    env = Pixels(lambda: gymnasium.make("CartPole-v1", render_mode="rgb_array"), 32)
    np.testing.assert_array_equal(env.reset(seed=1)[0], frames[0])
    env.close()


@pytest.mark.filterwarnings("ignore:.*render")
def test_what_does_not_render_is_named() -> None:
    with pytest.raises(UserError, match=r"size 5: pixels from 16 to 1024 expected"):
        make_env("aaren/Pixels-v0?env=CartPole-v1&size=5")
    with pytest.raises(UserError, match=r"stack 0: at least 1 frame"):
        make_env(f"{CARTPOLE}&stack=0")
    with pytest.raises(UserError, match="No-v0"):
        make_env("aaren/Pixels-v0?env=No-v0")
    with pytest.raises(UserError, match="environment Line: cannot be rendered: NotImplemented"):
        Pixels(Line, 32).reset(seed=0)
    silent = Pixels(lambda: gymnasium.make("CartPole-v1"), 32)
    with pytest.raises(UserError, match=r"environment CartPole-v1: renders object .* expected"):
        silent.reset(seed=0)

from __future__ import annotations

import sys
from typing import Any

import gymnasium
import numpy as np
import pytest

from aaren_rl.envs import expert_dataset, make_env, make_vector_env
from aaren_rl.envs.memory.minigrid import EAST, FORWARD, LEFT, SIZES, MiniGridMemoryExpert
from aaren_rl.errors import UserError

minigrid = pytest.importorskip("minigrid", reason="needs the extra minigrid")


def name(size: str) -> str:
    return f"aaren/MiniGridMemory{size}-v0"


@pytest.mark.parametrize("size", SIZES)
def test_shows_what_minigrid_shows(size: str) -> None:
    ours, theirs = gymnasium.make(name(size)), gymnasium.make(f"MiniGrid-Memory{size}-v0")
    actions = np.random.default_rng(0).integers(7, size=60)
    flat, plain = ours.reset(seed=4)[0], theirs.reset(seed=4)[0]
    assert ours.action_space == theirs.action_space
    for action in actions:
        assert flat in ours.observation_space
        image = flat[:147].reshape(7, 7, 3) * [10, 5, 2]
        np.testing.assert_allclose(image, plain["image"], atol=1e-6)
        np.testing.assert_array_equal(flat[147:], np.eye(4)[plain["direction"]])
        flat, *results, _ = ours.step(action)
        plain, *expected, _ = theirs.step(action)
        assert results == expected
        if results[1] or results[2]:
            flat, plain = ours.reset()[0], theirs.reset()[0]


def play(environment: str, episodes: int, policy_of: Any) -> tuple[np.ndarray, np.ndarray]:
    """Returns and lengths of the first episode of each environment."""
    env = make_vector_env(environment, episodes)
    policy = policy_of(env)
    observations, _ = env.reset(seed=list(range(episodes)))
    returns, lengths = np.zeros(episodes), np.zeros(episodes, int)
    running, dones = np.ones(episodes, bool), np.ones(episodes, bool)
    while running.any():
        actions = policy.act(observations, None, dones)
        observations, rewards, terminated, truncated, _ = env.step(actions)
        returns[running] += rewards[running]
        lengths[running] += 1
        dones = terminated | truncated
        running &= ~dones
        if dones.any():
            observations, _ = env.reset(seed=[0] * episodes, options={"reset_mask": dones.copy()})
    env.close()
    return returns, lengths


@pytest.mark.parametrize("size", [*SIZES, "S13-v0?size=31"])
def test_the_expert_always_succeeds_and_goes_straight(size: str) -> None:
    environment = f"aaren/MiniGridMemory{size}" if "?" in size else name(size)
    returns, lengths = play(environment, 40, MiniGridMemoryExpert)
    side = 31 if "?" in size else SIZES[size]["size"]
    assert returns.min() > 0
    assert lengths.max() <= 2 * side  # to the room, back, and the turns
    np.testing.assert_allclose(returns, 1 - 0.9 * lengths / (5 * side**2))


def test_without_its_memory_the_expert_is_at_chance() -> None:
    class Forgetful(MiniGridMemoryExpert):
        """Takes, once it has left the room, a key for what it saw."""

        def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
            actions = super().act(observations, rewards, dones)
            self.objects[self.objects > 0] = 5
            return actions

    returns, _ = play(name("S7"), 300, Forgetful)
    assert (returns > 0).mean() == pytest.approx(0.5, abs=0.1)


def test_the_expert_turns_around_to_look() -> None:
    """Beginning at the corridor's end, it sees the start room's object only when it looks west."""
    env = make_vector_env(name("S13"), 40)
    observations, _ = env.reset(seed=list(range(40)))
    starts = np.array([single.unwrapped.agent_pos[0] for single in env.envs])
    expert = MiniGridMemoryExpert(env)
    first = expert.act(observations, None, np.ones(40, bool))
    assert set(first[starts > 1]) == {LEFT}
    assert set(first[starts == 1]) == {FORWARD}
    assert (observations[:, -4:].argmax(axis=1) == EAST).all()
    assert not expert.objects[starts > 1].any()
    for _ in range(10):
        observations, *_ = env.step(expert.act(observations))
    assert expert.objects.all()
    truth = [single.unwrapped.grid.get(1, 5).type for single in env.envs]
    assert [{5: "key", 6: "ball"}[kind] for kind in expert.objects] == truth
    env.close()


def test_it_can_be_drawn() -> None:
    env = gymnasium.make(name("S7"), render_mode="rgb_array")
    env.reset(seed=0)
    assert env.render().shape[2] == 3
    env.close()


def test_what_is_missing_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "minigrid.envs", None)
    with pytest.raises(UserError, match=r"pip install 'aaren-rl\[minigrid\]'"):
        make_vector_env(name("S7"), 1)


def test_shows_images_as_minigrid_draws_them() -> None:
    from minigrid.wrappers import RGBImgPartialObsWrapper

    ours = gymnasium.make(name("S9"), tile_size=8)
    theirs = RGBImgPartialObsWrapper(gymnasium.make("MiniGrid-MemoryS9-v0"), tile_size=8)
    frame, plain = ours.reset(seed=2)[0], theirs.reset(seed=2)[0]
    for action in [*np.random.default_rng(0).integers(3, size=20)]:
        assert frame in ours.observation_space
        np.testing.assert_array_equal(frame, plain["image"])
        frame, plain = ours.step(action)[0], theirs.step(action)[0]


def test_the_experts_episodes_as_images() -> None:
    """The same episodes as those of numbers, and the environment that shows them so."""
    images = expert_dataset(f"{name('S7')}?tile_size=5", 12, seed=3)
    numbers = expert_dataset(name("S7"), 12, seed=3)
    np.testing.assert_array_equal(images.actions, numbers.actions)
    np.testing.assert_array_equal(images.offsets, numbers.offsets)
    assert images.env_spec is not None
    env = gymnasium.make(images.env_spec)
    assert images.observation_space == env.observation_space
    np.testing.assert_array_equal(images.observations[0], env.reset(seed=3)[0].reshape(-1))
    assert images.observations.dtype == np.uint8


@pytest.mark.parametrize("tile_size", [0, 100, "large"])
def test_a_tile_size_that_is_none(tile_size: Any) -> None:
    with pytest.raises(UserError, match=r"tile_size .*: pixels from 1 to 64 expected"):
        make_env(f"{name('S7')}?tile_size={tile_size}")

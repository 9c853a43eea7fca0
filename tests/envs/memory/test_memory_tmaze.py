from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from aaren_rl.envs import make_vector_env
from aaren_rl.envs.memory.tmaze import PassiveTMazeExpert
from aaren_rl.errors import UserError

NAME = "aaren/PassiveTMaze-v0"


@pytest.mark.parametrize("cues", [2, 3, 16])
def test_what_is_seen_and_when(cues: int) -> None:
    env = gymnasium.make(NAME, length=6, cues=cues)
    assert env.action_space == gymnasium.spaces.Discrete(cues + 1)
    shown = set()
    for seed in range(12 * cues):
        first, _ = env.reset(seed=seed)
        assert first.shape == (cues + 2,)
        cue = first[:cues]
        assert sorted(cue) == [-1] * (cues - 1) + [1]
        assert tuple(first[cues:]) == (1, 0)
        shown.add(int(cue.argmax()))
        for step in range(1, 7):
            observation, reward, terminated, truncated, _ = env.step(0)
            assert not observation[: cues + 1].any()
            assert observation[cues + 1] == (step == 5)
            assert (reward, terminated, truncated) == (0, step == 6, False)
    assert len(shown) == cues


def test_the_shortest_is_cue_and_junction() -> None:
    env = gymnasium.make(NAME, length=2)
    env.reset(seed=0, options={"cue": 1})
    junction, *_ = env.step(0)
    np.testing.assert_array_equal(junction, [0, 0, 0, 1])
    assert env.step(2)[1:3] == (1, True)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_only_the_right_side_is_rewarded(noise: float) -> None:
    env = gymnasium.make(NAME, length=5, cues=3, noise=noise)
    for cue in range(3):
        for action in range(4):
            env.reset(seed=0, options={"cue": cue})
            rewards = [env.step(action)[1] for _ in range(5)]
            assert rewards == [0, 0, 0, 0, action == cue + 1]


def test_noise_stays_in_the_corridor_and_off_the_flags() -> None:
    env = make_vector_env(f"{NAME}?length=[3,20]&noise=0.5&cues=3", 50)
    quiet = make_vector_env(f"{NAME}?length=[3,20]&cues=3", 50)
    seeds = list(range(50))
    seen, plain = env.reset(seed=seeds)[0], quiet.reset(seed=seeds)[0]
    np.testing.assert_array_equal(seen, plain)
    done = np.zeros(50, bool)
    while not done.all():
        corridor = (plain[:, 3:] == 0).all(axis=1) & ~done
        assert (seen[corridor][:, :3] != 0).all()
        np.testing.assert_array_equal(seen[~corridor], plain[~corridor])
        np.testing.assert_array_equal(seen[:, 3:], plain[:, 3:])
        seen, _, ended, _, _ = env.step(np.zeros(50, int))
        plain, _, also, _, _ = quiet.step(np.zeros(50, int))
        np.testing.assert_array_equal(ended, also)
        done = ended
        if ended.any():  # both start again, the same again
            options = {"reset_mask": ended}
            again = [seed + 50 for seed in seeds]
            seen, plain = (e.reset(seed=again, options=options)[0] for e in (env, quiet))
            done = np.zeros(50, bool)
            seeds = again
            if seeds[0] > 500:
                break


def success(policy: object, name: str, episodes: int) -> float:
    env = make_vector_env(name, episodes)
    observations, _ = env.reset(seed=list(range(episodes)))
    total, ended = np.zeros(episodes), np.zeros(episodes, bool)
    while not ended.any():
        observations, rewards, ended, _, _ = env.step(policy(observations))  # type: ignore[operator]
        total += rewards
    assert ended.all()
    return float(total.mean())


@pytest.mark.parametrize("cues", [2, 4])
@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_memory_is_what_it_takes(cues: int, noise: float) -> None:
    name = f"{NAME}?length=300&cues={cues}&noise={noise}"
    expert = PassiveTMazeExpert(make_vector_env(name, 1000))
    assert success(expert.act, name, 1000) == 1.0
    # The best that can be read off the present: the largest of the cue's channels.
    memoryless = success(lambda seen: 1 + seen[:, :cues].argmax(axis=1), name, 1000)
    assert memoryless == pytest.approx(1 / cues, abs=0.06)


def test_a_cue_can_be_asked_for() -> None:
    env = make_vector_env(f"{NAME}?cues=4", 3)
    cues = np.array([3, 0, 2])
    observations, _ = env.reset(seed=[1, 1, 1], options={"cue": cues})
    np.testing.assert_array_equal(observations[:, :4].argmax(axis=1), cues)
    with pytest.raises(UserError, match="option cue 4"):
        env.reset(seed=[1, 1, 1], options={"cue": 4})


def test_a_long_corridor_costs_no_more() -> None:
    """Nothing is kept for each step of the corridor."""
    env = make_vector_env(f"{NAME}?length=1000000000&noise=0.5", 64)
    env.reset(seed=list(range(64)))
    observations = env.step(np.zeros(64, int))[0]
    assert observations.shape == (64, 4)

"""What both memory tasks have in common."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env
from gymnasium.vector import AutoresetMode

from aaren_rl.envs import environment_spec, make_vector_env
from aaren_rl.envs.memory.task import NOISE_BLOCK, Lengths, VectorMemoryTask
from aaren_rl.errors import UserError

TASKS = {
    "maze": "aaren/PassiveTMaze-v0?length=[2,9]",
    "noisy maze": "aaren/PassiveTMaze-v0?length=[2,9]&noise=0.5&cues=3",
    "recall": "aaren/Recall-v0?length=[6,12]&pairs=3&values=5",
    "noisy recall": "aaren/Recall-v0?length=[6,12]&pairs=3&noise=0.5",
}


@pytest.mark.filterwarnings("ignore:.*Box observation space m.*infinity")
@pytest.mark.parametrize("name", TASKS.values(), ids=TASKS)
def test_gymnasium_accepts_it(name: str) -> None:
    env = gymnasium.make(environment_spec(name))
    assert env.spec is not None
    assert env.spec.max_episode_steps is None
    check_env(env.unwrapped, skip_render_check=True)
    env.close()


def episode(env: gymnasium.Env[Any, Any], seed: int | None, actions: np.random.Generator) -> list:
    """All that one episode shows, under random actions."""
    shown: list[Any] = [env.reset(seed=seed)[0]]
    while True:
        observation, reward, terminated, truncated, _ = env.step(
            int(actions.integers(env.action_space.n))  # type: ignore[attr-defined]
        )
        shown += [observation, reward, terminated, truncated]
        if terminated or truncated:
            return shown


def same(ours: list, theirs: list) -> bool:
    return len(ours) == len(theirs) and all(
        np.array_equal(mine, other) for mine, other in zip(ours, theirs, strict=True)
    )


@pytest.mark.parametrize("name", TASKS.values(), ids=TASKS)
def test_side_by_side_as_alone(name: str) -> None:
    """Episodes handed out as rollouts do, each with its seed, equal those of the single form."""
    seeds = list(range(40, 52))
    alone = gymnasium.make(environment_spec(name))
    expected = [episode(alone, seed, np.random.default_rng(seed)) for seed in seeds]

    env = make_vector_env(name, 3)
    assert isinstance(env.unwrapped, VectorMemoryTask)
    actions = [np.random.default_rng(seed) for seed in seeds]
    shown: list[list] = [[] for _ in seeds]
    running, waiting = np.arange(3), 3  # -1: nothing left to run, an uncounted one goes on
    restarted = np.ones(3, bool)
    observations, _ = env.reset(seed=seeds[:3], options={"reset_mask": restarted})
    while (running >= 0).any():
        for i in np.flatnonzero(restarted & (running >= 0)):
            shown[running[i]].append(observations[i])
        step = [actions[r].integers(env.single_action_space.n) if r >= 0 else 0 for r in running]
        observations, *results, _ = env.step(np.array(step))
        for i in np.flatnonzero(running >= 0):
            shown[running[i]] += [observations[i], *(result[i] for result in results)]
        restarted = results[1]
        if restarted.any():
            reseed: list[int | None] = [None] * 3
            for i in np.flatnonzero(restarted):
                running[i] = waiting if waiting < len(seeds) else -1
                reseed[i] = seeds[running[i]]
                waiting += 1
            before = observations
            observations, _ = env.reset(seed=reseed, options={"reset_mask": restarted})
            np.testing.assert_array_equal(observations[~restarted], before[~restarted])
    assert all(same(mine, theirs) for mine, theirs in zip(shown, expected, strict=True))


@pytest.mark.parametrize("name", TASKS.values(), ids=TASKS)
def test_without_a_seed_the_generator_goes_on(name: str) -> None:
    """Gymnasium's automatic restart, side by side, gives what resets without a seed give alone."""
    spec = environment_spec(name)
    env = gymnasium.make_vec(spec, num_envs=2)
    assert env.metadata["autoreset_mode"] is AutoresetMode.NEXT_STEP
    singles = [gymnasium.make(spec) for _ in range(2)]
    for i, single in enumerate(singles):
        single.reset(seed=7 + i)
    env.reset(seed=7)
    ended = [False, False]
    for _ in range(60):
        observations, rewards, terminations, _, _ = env.step(np.array([1, 2]))
        for i, single in enumerate(singles):
            if ended[i]:
                observation, reward, ended[i] = single.reset()[0], 0.0, False
            else:
                observation, reward, ended[i], _, _ = single.step(1 + i)
            np.testing.assert_array_equal(observations[i], observation)
            assert (rewards[i], terminations[i]) == (reward, ended[i])


@pytest.mark.parametrize("name", TASKS.values(), ids=TASKS)
def test_a_finished_episode_waits_for_its_reset(name: str) -> None:
    env = make_vector_env(f"{name}&length=6".replace("pairs=3", "pairs=2"), 2)
    with pytest.raises(gymnasium.error.ResetNeeded):
        env.step(np.zeros(2, int))
    env.reset(seed=[0, 1])
    for _ in range(6):
        final, _, terminated, _, _ = env.step(np.zeros(2, int))
    assert terminated.all()
    assert not final.any()
    with pytest.raises(gymnasium.error.ResetNeeded, match=r"\[0, 1\]"):
        env.step(np.zeros(2, int))


def test_what_cannot_be_acted_on_is_refused() -> None:
    env = make_vector_env(TASKS["maze"], 2)
    with pytest.raises(ValueError, match="3 seeds for 2"):
        env.reset(seed=[1, 2, 3])
    with pytest.raises(ValueError, match="reset_mask"):
        env.reset(seed=[1, 2], options={"reset_mask": np.ones(3, bool)})
    env.reset(seed=[1, 2])
    for wrong in (np.zeros(3, int), np.zeros(2), 0):
        with pytest.raises(ValueError, match=r"integers of shape \(2,\)"):
            env.step(wrong)


def test_noise_is_gaussian_and_everyones_own() -> None:
    steps = 3 * NOISE_BLOCK
    env = make_vector_env(f"aaren/PassiveTMaze-v0?length={steps}&noise=0.5", 20)
    env.reset(seed=list(range(20)))
    seen = np.stack([env.step(np.zeros(20, int))[0] for _ in range(steps - 2)])
    noise = seen[:, :, :2].astype(np.float64)
    assert noise.mean() == pytest.approx(0, abs=0.02)
    assert noise.std() == pytest.approx(0.5, rel=0.03)
    assert (noise**4).mean() / (noise**2).mean() ** 2 == pytest.approx(3, rel=0.1)
    # neither between environments or channels, nor from one step or block to another
    everyone = noise.reshape(len(noise), -1)
    assert np.abs(np.corrcoef(everyone.T) - np.eye(40)).max() < 0.2
    for lag in (1, NOISE_BLOCK):
        together = (everyone[lag:] * everyone[:-lag]).mean() / 0.25
        assert together == pytest.approx(0, abs=0.03)


def test_lengths() -> None:
    generator = np.random.default_rng(0)
    assert Lengths(7, False, 2).draw(generator) == 7
    uniform = [Lengths([5, 24], False, 2).draw(generator) for _ in range(20_000)]
    counts = np.bincount(uniform)[5:]
    assert len(counts) == 20
    assert np.abs(counts - 1000).max() < 150
    doubling = np.array([Lengths([8, 127], True, 2).draw(generator) for _ in range(20_000)])
    assert (doubling.min(), doubling.max()) == (8, 127)
    for low in (8, 16, 32, 64):
        assert np.mean((low <= doubling) & (doubling < 2 * low)) == pytest.approx(0.25, abs=0.02)


@pytest.mark.parametrize(
    "length", [1, 0, None, [9, 5], [1, 5], [5], [5, 6, 7], 2.5, [2, 9.5], "ab"]
)
def test_no_lengths(length: Any) -> None:
    with pytest.raises(UserError, match="length"):
        gymnasium.make("aaren/PassiveTMaze-v0", length=length)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ("noise=-1", "noise -1"),
        ("noise=NaN", "noise nan"),
        ("cues=1", "cues 1"),
        ("colour=3", "colour"),
    ],
)
def test_no_such_task(options: str, named: str) -> None:
    with pytest.raises(UserError, match=named):
        make_vector_env(f"aaren/PassiveTMaze-v0?{options}", 2)


@pytest.mark.filterwarnings("ignore:.*render_mode")
def test_there_is_nothing_to_draw() -> None:
    with pytest.raises(UserError, match="no pictures"):
        gymnasium.make("aaren/Recall-v0", render_mode="rgb_array")


def test_same_step_restarts_are_refused() -> None:
    with pytest.raises(UserError, match="SameStep"):
        gymnasium.make_vec("aaren/Recall-v0", num_envs=2, autoreset_mode="SameStep")

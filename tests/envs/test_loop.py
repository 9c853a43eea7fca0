"""The loop over vector environments: which episodes, in every autoreset mode."""

from __future__ import annotations

import itertools
from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Actor, Endless, Line
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, SyncVectorEnv, VectorEnv

from aaren_rl.envs import make_vector_env, play, recorded_episodes
from aaren_rl.errors import UserError


def lengths_and_returns(steps: Any, episodes: int) -> tuple[list[int], list[float]]:
    lengths, returns = [0] * episodes, [0.0] * episodes
    for step in steps:
        for index, episode in enumerate(step.episodes.tolist()):
            if episode >= 0:
                lengths[episode] += 1
                returns[episode] += float(step.rewards[index])
    return lengths, returns


@pytest.mark.parametrize("num_envs", [1, 3, 11])
def test_every_episode_has_its_seed(num_envs: int) -> None:
    vector = make_vector_env(Line, num_envs)
    found = lengths_and_returns(play(Actor(num_envs), vector, episodes=11, seed=50), 11)
    seeds = range(50, 61)
    assert found[0] == [1 + seed % 7 for seed in seeds]
    assert found[1] == [seed * (1.0 + seed % 7) for seed in seeds]


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.SAME_STEP])
def test_environments_that_restart_by_themselves(mode: AutoresetMode) -> None:
    """Environment j of 3 plays the episodes j, j + 3, ...; the restarting step counts for none."""
    vector = make_vector_env(SyncVectorEnv([Line] * 3, autoreset_mode=mode), 99)
    actor = Actor(3)
    steps = list(play(actor, vector, episodes=8, seed=50))
    seeds = [50, 51, 52, 150, 151, 152, 250, 251]
    found = lengths_and_returns(steps, 8)
    assert found[0] == [1 + seed % 7 for seed in seeds]
    assert found[1] == [seed * (1.0 + seed % 7) for seed in seeds]
    for step, starts in zip(steps, actor.starts, strict=True):
        for index in np.flatnonzero(step.episodes >= 0):
            assert starts[index] == (step.observations[index, 1] == 0)
            # What came of the action belongs to the episode in which it was taken.
            assert step.next_observations[index, 0] == step.observations[index, 0]
            assert step.next_observations[index, 1] == step.observations[index, 1] + 1


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_recorded_episodes_are_whole_and_in_order(mode: AutoresetMode) -> None:
    vector = SyncVectorEnv([Line] * 3, autoreset_mode=mode)
    episodes = list(recorded_episodes(Actor(3), vector, episodes=8, seed=0))
    assert len(episodes) == 8
    for episode in episodes:
        steps = len(episode.rewards)
        assert steps == 1 + int(episode.rewards[0]) % 7
        np.testing.assert_array_equal(episode.observations[:, 1], np.arange(steps + 1))
        assert (episode.terminated, episode.truncated) == (True, False)
    if mode is AutoresetMode.DISABLED:
        assert [episode.rewards[0] for episode in episodes] == list(range(8))


class Batch(VectorEnv[Any, Any, Any]):
    """Two environments of 3 steps that give the same arrays at every step, and change actions."""

    num_envs = 2
    single_observation_space = observation_space = spaces.Box(-9, 9, (1,))
    single_action_space = action_space = spaces.Box(-1, 1, (1,))

    def __init__(self, mode: AutoresetMode, shape: tuple[int, ...] = (2,)) -> None:
        self.metadata = {"autoreset_mode": mode}
        self.seen, self.earned = np.zeros((2, 1), np.float32), np.zeros(shape)
        self.over = np.zeros(2, bool)

    def reset(self, *, seed: Any = None, options: Any = None) -> Any:
        self.seen[:], self.over[:] = 0, False
        return self.seen, {}

    def step(self, actions: Any) -> Any:
        actions[:] = 7
        self.seen += 1
        self.earned[:] = self.seen[0]
        if self.over[0]:  # `NEXT_STEP` restarts
            self.seen[:] = 0
        self.over[:] = self.seen[0] == 3
        return self.seen, self.earned, self.over, np.zeros(2, bool), {}


@pytest.mark.parametrize("mode", [AutoresetMode.NEXT_STEP, AutoresetMode.DISABLED])
def test_environments_may_reuse_their_arrays_and_change_actions(mode: AutoresetMode) -> None:
    episodes = list(recorded_episodes(Actor(2), Batch(mode), episodes=4, seed=0))
    assert len(episodes) == 4
    for episode in episodes:
        assert episode.observations.tolist() == [[0], [1], [2], [3]]
        assert episode.rewards.tolist() == [1, 2, 3]
        assert not episode.actions.any()


def test_rewards_of_another_shape_are_refused_by_name() -> None:
    said = r"Batch: a step gave rewards of shape \(2, 1\); one for each of 2 environments expected"
    with pytest.raises(UserError, match=said):
        list(play(Actor(2), Batch(AutoresetMode.NEXT_STEP, (2, 1)), episodes=2, seed=0))


def test_recording_without_end() -> None:
    endless = recorded_episodes(Actor(4), make_vector_env(Line, 4), episodes=None, seed=3)
    first = list(itertools.islice(endless, 20))
    assert [episode.rewards[0] for episode in first] == list(range(3, 23))


def test_episodes_are_cut_at_the_limit() -> None:
    vector = make_vector_env(Endless, 2)
    with pytest.warns(UserWarning, match="environment Endless: episodes are cut after 5 steps"):
        steps = list(play(Actor(2), vector, episodes=3, seed=0, limit=5))
    assert lengths_and_returns(steps, 3)[0] == [5, 5, 5]
    assert steps[4].truncations.all()
    assert not steps[4].terminations.any()
    vector = SyncVectorEnv([Endless] * 2)
    with pytest.raises(UserError, match="environment Endless: no end after 5 steps"):
        list(play(Actor(2), vector, episodes=3, seed=0, limit=5))


class Broken(Line):
    def __init__(self, what: str) -> None:
        super().__init__()
        self.what = what

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        if self.what == "reset":
            raise RuntimeError("no\nsocket")
        return super().reset(seed=seed)

    def step(self, action: Any) -> Any:
        seen, reward, *rest = super().step(action)
        if self.what == "step" and self.t == 2:
            raise AssertionError("simulator died")
        return seen, float(self.what) if self.what in ("nan", "-inf", "-1e30") else reward, *rest


@pytest.mark.parametrize(
    ("what", "said"),
    [
        ("reset", "environment Broken: reset failed: RuntimeError: no socket"),
        ("step", "environment Broken: .*step.* failed: AssertionError: simulator died"),
        ("nan", r"reward nan in episode 0 \(seed 50\); a finite number expected"),
        ("-inf", "reward -inf in episode 0"),
        ("-1e30", r"reward -1e\+30 in episode 0 \(seed 50\); .* at most 1e\+18"),
    ],
)
def test_failing_environments_are_named_in_one_line(what: str, said: str) -> None:
    vector = make_vector_env(lambda: Broken(what), 2)
    with pytest.raises(UserError, match=said) as caught:
        list(play(Actor(2), vector, episodes=3, seed=50))
    assert "\n" not in str(caught.value)


def test_what_an_actor_refuses_is_said_with_the_episode() -> None:
    class Refusing(Actor):
        def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
            if rewards is not None:
                raise UserError("unfit")
            return super().act(observations, rewards, dones)

    class Nan(Line):
        def see(self) -> Any:
            return super().see() * (np.nan if self.t and self.seed == 51 else 1)

    for env, said in (
        (Nan, r"environment Nan: observation nan in episode 1 \(seed 51\); finite"),
        (Line, "environment Line: in one of the episodes .*1.*: unfit"),
    ):
        with pytest.raises(UserError, match=said):
            list(play(Refusing(2), make_vector_env(env, 2), episodes=2, seed=50))


def test_composite_observations_at_the_end_of_same_step_episodes() -> None:
    """`next_observations` are those before the restart, in every part of a Dict space."""

    class Parts(gymnasium.Env[Any, Any]):
        observation_space = gymnasium.spaces.Dict(
            {"time": gymnasium.spaces.Box(0, 9, (1,)), "phase": gymnasium.spaces.Discrete(5)}
        )
        action_space = gymnasium.spaces.Discrete(2)

        def observed(self) -> dict[str, Any]:
            return {"time": np.array([self.time], np.float32), "phase": self.time}

        def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
            self.time = 0
            return self.observed(), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            self.time += 1
            return self.observed(), 1.0, self.time == 3, False, {}

    class Still:
        def act(self, observations: Any, rewards: Any = None, dones: Any = None) -> Any:
            return np.zeros(2, np.int64)

    vector = SyncVectorEnv([Parts, Parts], autoreset_mode=AutoresetMode.SAME_STEP)
    steps = list(play(Still(), vector, episodes=4, seed=0))
    assert len(steps) == 6
    for number, step in enumerate(steps):
        time = number % 3
        assert step.observations["phase"].tolist() == [time, time]
        assert step.next_observations["phase"].tolist() == [time + 1, time + 1]
        assert step.next_observations["time"].tolist() == [[time + 1], [time + 1]]


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_success_in_the_info_of_a_reset_counts_for_no_episode(mode: AutoresetMode) -> None:
    class Started(Line):
        def reset(self, **options: Any) -> tuple[Any, dict[str, Any]]:
            return super().reset(**options)[0], {"success": True}

        def step(self, action: Any) -> Any:
            return *super().step(action)[:4], {"success": False}

    vector = SyncVectorEnv([Started] * 2, autoreset_mode=mode)
    for step in play(Actor(2), vector, episodes=6, seed=0):
        assert step.successes is not None
        assert not step.successes[step.episodes >= 0].any()

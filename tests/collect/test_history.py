"""What was learned from: recorded, written, read as episodes, and put into a replay buffer."""

from __future__ import annotations

import dataclasses
from typing import Any

import gymnasium
import numpy as np
import pytest
from collect_cases import Collections
from gymnasium import spaces

from aaren_rl.collect import training
from aaren_rl.collect.learner import FIELDS, Recorder, make_learner
from aaren_rl.collect.rollouts import play
from aaren_rl.collect.training import history_episodes
from aaren_rl.envs.make import environment_spec, make_env
from aaren_rl.evaluation.rollouts import LONGEST_EPISODE
from aaren_rl.files import read_tensors


class Counting(gymnasium.Env[Any, Any]):
    """Shows the number of the step, always in the same array; an episode has five steps."""

    observation_space = spaces.Box(0, 255, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def __init__(self) -> None:
        self._shown = np.zeros(1, np.float32)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        self._shown[:] = 0
        return self._shown, {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self._shown += 1
        return self._shown, 0.5, bool(self._shown == 5), False, {}


def test_steps_are_copied_and_the_open_episode_is_cut() -> None:
    recorder = Recorder(Counting())
    for steps in (5, 3):
        recorder.reset()
        for step in range(steps):
            recorder.step(step % 2)
    taken = recorder.take()
    assert tuple(taken) == FIELDS
    assert taken["observations"][:, 0].tolist() == [0, 1, 2, 3, 4, 0, 1, 2]
    assert taken["next_observations"][:, 0].tolist() == [1, 2, 3, 4, 5, 1, 2, 3]
    assert taken["actions"].tolist() == [0, 1, 0, 1, 0, 0, 1, 0]
    assert np.flatnonzero(taken["terminations"]).tolist() == [4]
    assert np.flatnonzero(taken["truncations"]).tolist() == [7]
    recorder.step(1)
    assert recorder.take()["observations"].tolist() == [[3]]


def test_actions_are_recorded_as_they_were_chosen() -> None:
    class Changing(Counting):
        def step(self, action: Any) -> Any:
            action[:] = 9
            return super().step(action)

    recorder = Recorder(Changing())
    recorder.reset()
    recorder.step(np.array([1]))
    assert recorder.take()["actions"].tolist() == [[1]]


def test_episodes_without_a_time_limit_are_cut() -> None:
    spec = dataclasses.replace(gymnasium.spec("Pendulum-v1"), max_episode_steps=None)
    with pytest.warns(UserWarning, match="names no time limit"):
        [episode] = play(lambda seen: np.zeros((len(seen), 1), "f4"), spec, seed=0, episodes=1)
    assert len(episode.rewards) == LONGEST_EPISODE
    assert (episode.terminated, episode.truncated) == (False, True)


@pytest.mark.parametrize("kind", ["ppo", "dqn", "sac"])
def test_history_is_every_step_in_whole_episodes(kind: str, collections: Collections) -> None:
    collections.rows(kind)
    config = collections.config(kind)
    model, run = (
        make_learner(config, make_env(environment_spec(config.environment))),
        config.run_folder,
    )
    files = sorted((run / "history").iterdir())
    stop = int(sorted((run / "policies").iterdir())[-2].stem)  # before the last checkpoint
    episodes = list(history_episodes(model, run, stop))
    assert sum(len(episode.rewards) for episode in episodes) == stop == int(files[-1].stem)
    rewards = np.concatenate([read_tensors(file)["rewards"].numpy() for file in files])
    np.testing.assert_array_equal(np.concatenate([e.rewards for e in episodes]), rewards[:stop])
    assert all(len(e.observations) == len(e.actions) + 1 for e in episodes)
    assert all(e.terminated or e.truncated for e in episodes)


@pytest.mark.parametrize("kind", ["dqn", "sac"])
def test_the_replay_buffer_holds_the_last_steps(kind: str, collections: Collections) -> None:
    collections.rows(kind)
    config = collections.config(kind)
    model: Any = make_learner(config, make_env(environment_spec(config.environment)))
    training._restore(model, config.run_folder)
    buffer = model.replay_buffer
    assert buffer.full
    assert buffer.pos == config.train_steps % config.buffer_size
    files = sorted((config.run_folder / "history").iterdir())
    for name in ("observations", "next_observations", "rewards"):
        steps = np.concatenate([read_tensors(file)[name].numpy() for file in files])
        rows = np.arange(config.train_steps - config.buffer_size, config.train_steps)
        held = getattr(buffer, name)[rows % config.buffer_size, 0]
        np.testing.assert_array_equal(held, steps[rows].astype(held.dtype))
    if kind == "sac":
        assert np.abs(buffer.actions).max() <= 1  # scaled; Pendulum's reach 2

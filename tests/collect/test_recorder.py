"""The environment put back into the middle of an episode, and the history on the disk."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.collect.history import History, Steps
from aaren_rl.collect.recorder import Recorder


def act(recorder: Recorder, actions: list[Any]) -> list[Any]:
    """What the recorder shows, with a reset after each episode's end."""
    shown = []
    for action in actions:
        observation, _, terminated, truncated, _ = recorder.step(action)
        shown.append(observation)
        if terminated or truncated:
            shown.append(recorder.reset()[0])
    return shown


@pytest.mark.parametrize("name", ["Hopper-v5", "CartPole-v1", "Pendulum-v1", "Acrobot-v1"])
def test_goes_on_from_the_middle_of_an_episode(name: str) -> None:
    first, second = (Recorder(gymnasium.make(name)) for _ in range(2))
    first.action_space.seed(3)
    actions = [first.action_space.sample() for _ in range(300)]
    first.reset(seed=5)
    act(first, actions[:130])
    steps = first.take()
    state = json.loads(json.dumps(first.state()))
    start = state["episode_start"]
    assert state["steps"] == 130
    assert second.restore(state, steps["actions"][start:], steps["next_observations"][start:])
    np.testing.assert_array_equal(first.observation, second.observation)
    for one, other in zip(act(first, actions[130:]), act(second, actions[130:]), strict=True):
        np.testing.assert_array_equal(one, other)
    recorded, again = first.take(), second.take()
    for field, values in recorded.items():
        np.testing.assert_array_equal(values, again[field])
    assert first.state() == second.state()


class Noisy(gymnasium.Env[Any, Any]):
    """Draws from a generator that nobody can set back."""

    observation_space = spaces.Box(0, 255, (1,), np.float32)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        return np.zeros(1, np.float32), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        return np.frombuffer(os.urandom(8), np.uint64).astype(np.float32), 0.0, False, False, {}


def test_an_environment_that_cannot_be_repeated_begins_anew() -> None:
    first, second = Recorder(Noisy()), Recorder(Noisy())
    first.reset(seed=0)
    act(first, [0, 1, 0])
    steps = first.take()
    assert not second.restore(first.state(), steps["actions"], steps["next_observations"])
    assert second.steps == second.episode_start == 3
    np.testing.assert_array_equal(second.observation, [0])
    assert second.take() == {}


def some_steps(first: int, count: int, ends: dict[int, str]) -> Steps:
    """Steps numbered by their observations; `ends` says how some of them end."""
    numbers = np.arange(first, first + count)
    return {
        "observations": numbers[:, None].astype(np.float32),
        "next_observations": numbers[:, None].astype(np.float32) + 0.5,
        "actions": numbers,
        "rewards": numbers.astype(np.float64),
        "terminations": np.array([ends.get(n) == "terminated" for n in numbers.tolist()]),
        "truncations": np.array([ends.get(n) == "truncated" for n in numbers.tolist()]),
    }


def test_episodes_go_over_the_borders_of_pieces(tmp_path: Path) -> None:
    history, ends = History(tmp_path), {2: "terminated", 8: "truncated", 9: "terminated"}
    for first, count in ((0, 4), (4, 3), (7, 5)):
        history.append(first, some_steps(first, count, ends))
    history.append(12, some_steps(12, 4, {}))
    history.cut(12)
    episodes = list(history.episodes(12))
    assert [episode.actions.tolist() for episode in episodes] == [
        [0, 1, 2],
        [3, 4, 5, 6, 7, 8],
        [9],
        [10, 11],
    ]
    flags = [(episode.terminated, episode.truncated) for episode in episodes]
    assert flags == [(True, False), (False, True), (True, False), (False, True)]
    assert episodes[1].observations[:, 0].tolist() == [3, 4, 5, 6, 7, 8, 8.5]
    assert [len(episode.actions) for episode in history.episodes(7)] == [3, 4]
    assert [episode.truncated for episode in history.episodes(7)] == [False, True]
    assert history.steps(3, 9)["actions"].tolist() == [3, 4, 5, 6, 7, 8]
    assert history.steps(3, 3) == {}
    history.mark_truncated(5)
    assert [len(episode.actions) for episode in history.episodes(7)] == [3, 3, 1]

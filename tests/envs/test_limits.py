"""What environments name as their time limit, and who cuts episodes beyond it."""

from __future__ import annotations

from typing import Any

import gymnasium
import numpy as np
import pytest
from env_cases import Endless
from gymnasium.wrappers import TimeLimit

from aaren_rl.envs import make_vector_env, missing_limit, time_limit


class Boastful(Endless):
    """Names a limit of 20 steps and goes on."""

    max_steps = 20


def test_time_limits() -> None:
    assert time_limit(make_vector_env("Hopper-v5", 1)) == 1000
    assert time_limit(make_vector_env(gymnasium.make("Hopper-v5"), 1)) == 1000
    assert time_limit(make_vector_env("aaren/Recall-v0?length=[20,50]", 2)) == 50
    assert time_limit(gymnasium.make("aaren/Recall-v0", length=40)) == 40
    assert time_limit(make_vector_env(lambda: TimeLimit(Endless(), 9), 2)) == 9
    assert time_limit(make_vector_env(Endless, 1)) is None


def test_a_limit_that_says_there_is_none() -> None:
    class Unlimited(Endless):
        max_steps = 10**12

    assert time_limit(Unlimited()) is None


def test_limits_of_every_form() -> None:
    class Computed(Endless):
        @property
        def max_steps(self) -> np.integer[Any]:
            return np.int64(6)

    class Own(Endless):
        def __init__(self) -> None:
            super().__init__()
            self.max_episode_steps = np.int32(8)

    assert (time_limit(Computed()), time_limit(Own())) == (6, 8)
    assert time_limit(gymnasium.Wrapper(Computed())) == 6


def test_environments_in_processes_keep_their_time_limit() -> None:
    """Asked of the environment itself where no specification names it, as without processes."""
    for env in (lambda: TimeLimit(Endless(), 1500), "aaren/PassiveTMaze-v0?length=1500"):
        vector = make_vector_env(env, 1, asynchronous=True)
        try:
            assert time_limit(vector) == 1500
        finally:
            vector.close()


@pytest.mark.parametrize("asynchronous", [False, True])
def test_an_attribute_ends_no_episode(asynchronous: bool) -> None:
    def limit(env: Any) -> int | None:
        vector = make_vector_env(env, 2, asynchronous=asynchronous)
        try:
            return missing_limit(vector, 7)
        finally:
            vector.close()

    assert (limit(Endless), limit(Boastful)) == (7, 20)
    assert limit(lambda: TimeLimit(Boastful(), 500)) is None
    assert limit("CartPole-v1") is None
    assert limit("aaren/PassiveTMaze-v0?length=30") == 30  # which it keeps itself

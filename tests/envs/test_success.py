"""Successes that environments report, and what else their `info` may hold."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from env_cases import Actor, Line
from gymnasium.vector import AutoresetMode, SyncVectorEnv

from aaren_rl.envs import make_vector_env, play


class Telling(Line):
    """Lasts for two to four steps with `info` of its own."""

    info: Any = staticmethod(lambda t: {})

    def step(self, action: Any) -> Any:
        shown, reward, _, truncated, _ = super().step(action)
        return shown, reward, self.t >= 2 + self.seed % 3, truncated, self.info(self.t)


def telling(info: Any) -> type[Telling]:
    return type("Telling", (Telling,), {"info": staticmethod(info)})


def won(vector: Any) -> list[bool | None]:
    """Of each of three episodes whether any step was a success."""
    steps = list(play(Actor(vector.num_envs), vector, episodes=3, seed=0))
    found: list[bool | None] = [None] * 3
    for step in steps:
        for index in np.flatnonzero(step.episodes >= 0) if step.successes is not None else ():
            assert step.successes is not None
            number = int(step.episodes[index])
            found[number] = bool(found[number] or step.successes[index])
    return found


@pytest.mark.parametrize(
    "info",
    [
        lambda t: {"path": np.zeros((t, 2))},
        lambda t: {"n": 10**30},
        lambda t: {"final_info": "x", "_success": "x", "final_obs": t},
        lambda t: {"success": np.zeros(2)},
        lambda t: {"success": "1"},
        lambda t: {"success": {"left": True}},
        lambda t: {"success": np.nan},
    ],
)
@pytest.mark.parametrize("num_envs", [1, 2])
def test_nothing_else_in_the_info_can_fail(info: Any, num_envs: int) -> None:
    assert won(make_vector_env(telling(info), num_envs)) == [None] * 3


@pytest.mark.parametrize(
    ("value", "success"),
    [
        (True, True),
        (np.bool_(True), True),
        (np.array([True]), True),
        (torch.tensor(True), True),
        (torch.tensor([1.0]), True),
        (5, True),
        (10**30, True),
        (0.01, False),
        (0, False),
        (np.array([False]), False),
    ],
)
def test_one_number_or_flag_says_it(value: Any, success: bool) -> None:
    for info in (lambda t: {"success": value}, lambda t: {"is_success": value, "success": np.nan}):
        assert won(make_vector_env(telling(info), 2)) == [success] * 3


@pytest.mark.parametrize("mode", list(AutoresetMode))
def test_vector_environments_that_are_given(mode: AutoresetMode) -> None:
    def vector(*values: Any) -> Any:
        kinds = [telling(lambda t, value=value: {"success": value}) for value in values]
        return SyncVectorEnv(kinds, autoreset_mode=mode)

    for yes, no in ((True, False), (1.0, 0.5), (np.bool_(True), np.bool_(False)), (1.0, np.nan)):
        assert won(vector(yes, no, yes)) == [True, False, True]
    assert won(vector(np.array([True]), np.array([True]), np.array([False]))) == [True, True, False]
    assert won(vector("x", "y", "z")) == [None] * 3
    own_key = telling(lambda t: {"final_info": np.zeros(2), "_success": "x"})
    if mode is not AutoresetMode.SAME_STEP:  # there Gymnasium fails itself
        assert won(SyncVectorEnv([own_key] * 3, autoreset_mode=mode)) == [None] * 3


def test_processes_of_their_own() -> None:
    ragged = telling(lambda t: {"path": np.zeros((t, 2)), "success": np.array([t == 2])})
    vector = make_vector_env(ragged, 2, asynchronous=True)
    assert won(vector) == [True] * 3
    vector.close()

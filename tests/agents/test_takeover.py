"""A robot's loop: episodes started by `reset`, and actions that were not those chosen."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from agent_cases import SPACES, make_agent

from aaren_rl.acting import Policy
from aaren_rl.errors import UserError

ENVS, STEPS = 3, 12
WAYS = [
    *(("decision-aaren", mode) for mode in ("carry", "reset", "window")),
    *(("decision-transformer", mode) for mode in ("carry", "reset", "window", "sliding")),
    ("decision-lstm", "carry"),
    ("decision-min-gru", "carry"),
    ("behavior-cloning", None),
]
ways = pytest.mark.parametrize(("name", "mode"), WAYS)
spaces = pytest.mark.parametrize("space", sorted(SPACES))
conditions = pytest.mark.parametrize("condition", ["target", "max-return"])


def start(name: str, mode: Any, space: str, **config: Any) -> Policy:
    return make_agent(name, SPACES[space], **config).policy(ENVS, mode=mode)


def seen(step: int) -> np.ndarray:
    return np.random.default_rng(step).normal(size=(ENVS, 4)).astype(np.float32)


def earned(step: int) -> np.ndarray:
    return np.random.default_rng(100 + step).normal(size=ENVS)


def done_by(space: str, step: int) -> np.ndarray:
    rng = np.random.default_rng(200 + step)
    if space == "discrete":
        return rng.integers(3, 8, size=ENVS)
    return rng.uniform(-1, 1, size=(ENVS, 2)).astype(np.float32)


@ways
@spaces
def test_reset_is_a_done_whose_reward_does_not_matter(name: str, mode: Any, space: str) -> None:
    one, other = start(name, mode, space), start(name, mode, space)
    mask = np.array([True, False, True])
    for step in range(STEPS):
        rewards, dones = (earned(step), np.zeros(ENVS, bool)) if step else (None, None)
        if step in (3, 8):
            one.reset(mask)
            assert rewards is not None
            actions = one.act(seen(step), np.where(mask, np.nan, rewards), dones)
            dones = mask
        elif step == 10:
            one.reset()
            actions, dones = one.act(seen(step)), np.ones(ENVS, bool)
        else:
            actions = one.act(seen(step), rewards, dones)
        np.testing.assert_array_equal(actions, other.act(seen(step), rewards, dones))
    with pytest.raises(UserError, match=r"mask must have shape \(3,\), got \(2,\)"):
        one.reset(np.array([True, False]))


@ways
@spaces
@conditions
def test_what_was_executed_is_what_is_remembered(
    name: str, mode: Any, space: str, condition: str
) -> None:
    """Telling a policy its own actions changes nothing; telling it others changes what follows."""
    if name == "behavior-cloning" and condition != "target":
        pytest.skip("it is asked for nothing")
    own, told, others = (start(name, mode, space, condition=condition) for _ in range(3))
    last, differs = None, False
    for step in range(STEPS):
        rewards, dones = (earned(step), np.zeros(ENVS, bool)) if step else (None, None)
        if step == 7:
            assert dones is not None
            dones[1] = True  # what was executed before an episode is no part of it
        actions = own.act(seen(step), rewards, dones)
        np.testing.assert_array_equal(actions, told.act(seen(step), rewards, dones, last))
        fed = others.act(seen(step), rewards, dones, None if step == 0 else done_by(space, step))
        last = actions
        differs = differs or not np.array_equal(actions, fed)
    if space == "continuous":
        assert differs == (name != "behavior-cloning")


@pytest.mark.parametrize("mode", ["carry", "window"])
@pytest.mark.parametrize("name", ["decision-aaren", "decision-lstm"])
def test_the_ways_of_acting_agree_on_executed_actions(name: str, mode: Any) -> None:
    """Stepping through a history of executed actions is one parallel pass over it."""
    import torch

    from aaren_rl.data import Batch

    agent, steps = make_agent(name), 5
    policy = agent.policy(ENVS, mode=mode)
    taken = [
        policy.act(
            seen(step),
            np.zeros(ENVS) if step else None,
            executed_actions=done_by("continuous", step) if step else None,
        )
        for step in range(steps)
    ]
    # Before step k + 1 action k was executed.
    executed = [done_by("continuous", step + 1) for step in range(steps)]
    batch = Batch(
        observations=torch.from_numpy(np.stack([seen(s) for s in range(steps)], 1)),
        actions=torch.from_numpy(np.stack(executed, 1)),
        returns_to_go=torch.full((ENVS, steps, 1), 40.0),
        timesteps=torch.arange(steps).expand(ENVS, steps),
        mask=torch.ones(ENVS, steps, dtype=torch.bool),
    )
    with torch.no_grad():
        wanted = agent.actions.decide(agent.predict(batch)).numpy()
    np.testing.assert_allclose(np.stack(taken, 1), wanted, rtol=0, atol=2e-5)


@ways
@pytest.mark.parametrize(
    ("space", "executed", "message"),
    [
        ("continuous", np.zeros((ENVS, 3)), r"must have shape \(3, 2\), got \(3, 3\)"),
        ("continuous", np.full((ENVS, 2), np.nan), r"environment \[0, 1, 2\] are not finite"),
        ("discrete", np.array([3, 4, 8]), "must be choices from 3 to 7"),
        ("discrete", np.array([3, 4, 4.5]), "must be choices from 3 to 7"),
    ],
)
def test_wrong_executed_actions_change_nothing(
    name: str, mode: Any, space: str, executed: np.ndarray, message: str
) -> None:
    one, other = start(name, mode, space), start(name, mode, space)
    for policy in (one, other):
        policy.act(seen(0))
    with pytest.raises(UserError, match=message):
        one.act(seen(1), earned(1), executed_actions=executed)
    for step in (1, 2):
        actions = one.act(seen(step), earned(step))
        np.testing.assert_array_equal(actions, other.act(seen(step), earned(step)))

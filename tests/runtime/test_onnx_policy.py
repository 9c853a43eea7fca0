"""An exported agent acts in ONNX Runtime as it does in PyTorch."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from exported_agents import HOPPER_ACTIONS, TARGET, exported, make_aaren, make_agent

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.envs import make_vector_env
from aaren_rl.errors import UserError
from aaren_rl.runtime import OnnxPolicy

SPACES: dict[str, gym.spaces.Space[Any]] = {
    "hopper": HOPPER_ACTIONS,
    "uneven": gym.spaces.Box(np.array([-2, -1], np.float32), np.array([2, 3], np.float32)),
    "half bounded": gym.spaces.Box(np.array([0, -np.inf], np.float32), np.inf, (2,)),
    "unbounded": gym.spaces.Box(-np.inf, np.inf, (1,), np.float64),
    "a matrix": gym.spaces.Box(-1, 1, (2, 2), np.float32),
    "discrete": gym.spaces.Discrete(5),
    "discrete from 3": gym.spaces.Discrete(4, start=3),
}


def play(policies: list[Policy], steps: int, ends: np.ndarray | None = None) -> list[Any]:
    """Show the same random past to several policies; their actions, `[steps, envs, ..]` each.

    `ends` (bool `[steps, envs]`) says where a new episode begins.
    """
    rng = np.random.default_rng(0)
    envs = 1 if ends is None else ends.shape[1]
    taken: list[list[np.ndarray]] = [[] for _ in policies]
    for step in range(steps):
        observations, rewards = rng.normal(size=(envs, 11)), rng.normal(size=envs)
        dones = None if ends is None else ends[step]
        for policy, actions in zip(policies, taken, strict=True):
            actions.append(policy.act(observations, rewards if step else None, dones))
    return [np.stack(actions) for actions in taken]


def by_torch(agent: Agent, num_envs: int, target: float = TARGET) -> Policy:
    """The agent's own layers, not the folded step that is exported."""
    return SteppingPolicy(agent, np.full(num_envs, target))  # type: ignore[arg-type]


@pytest.mark.parametrize("heads", [1, 4])
@pytest.mark.parametrize("query", [3.0, 30.0])
def test_a_thousand_real_steps_in_hopper(tmp_path: Path, heads: int, query: float) -> None:
    """Three environments, which fall and are cut at different times."""
    agent = make_aaren(heads=heads, query=query, layers=2)
    policies = by_torch(agent, 3), OnnxPolicy(exported(agent, tmp_path), 3)
    assert ("maximum_0" in policies[1].state()) == (query > 10)
    vector = make_vector_env("Hopper-v5", 3)
    observations, _ = vector.reset(seed=[1, 2, 3])  # type: ignore[arg-type]
    rewards, ended, worst, episodes = None, np.ones(3, bool), 0.0, np.zeros(3)
    low = 1.0
    for step in range(1000):
        ours, theirs = (policy.act(observations, rewards, ended) for policy in policies)
        worst, low = max(worst, np.abs(ours - theirs).max()), min(low, np.abs(ours).mean())
        episodes += ended
        observations, rewards, falls, cuts, _ = vector.step(ours)
        ended = falls | cuts | (step % np.array([999, 37, 61]) == 36)
        if ended.any():
            again = {"reset_mask": ended.copy()}
            seeds = [step, step + 1, step + 2]
            observations, _ = vector.reset(seed=seeds, options=again)  # type: ignore[arg-type]
    vector.close()
    assert worst < 1e-5
    assert low > 1e-3  # the actions say something
    assert len(set(episodes.tolist())) > 1


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_every_kind_of_action(tmp_path: Path, kind: str) -> None:
    agent = make_aaren(action_space=SPACES[kind], heads=2)
    ends = np.random.default_rng(1).random((200, 2)) < 0.05
    ends[0] = True
    pair = play([by_torch(agent, 2), OnnxPolicy(exported(agent, tmp_path), 2)], 200, ends)
    assert pair[0].shape == pair[1].shape
    assert pair[0].dtype == pair[1].dtype
    if "discrete" in kind:
        assert np.array_equal(*pair)
        assert len(np.unique(pair[0])) > 1
    else:
        np.testing.assert_allclose(pair[1], pair[0], rtol=0, atol=1e-5)
        assert pair[0].std() > 1e-3
    assert all(SPACES[kind].contains(action) for action in pair[1][:, 0])


@pytest.mark.parametrize(("heads", "activation"), [(1, "relu"), (2, "gelu")])
@pytest.mark.parametrize("embedding", ["learned", "sinusoidal", "none"])
def test_every_shape_of_agent(tmp_path: Path, heads: int, embedding: str, activation: str) -> None:
    agent = make_aaren(heads=heads, timestep_embedding=embedding, activation=activation)
    file = exported(agent, tmp_path)
    pair = play([by_torch(agent, 1), OnnxPolicy(file)], 300)
    np.testing.assert_allclose(pair[1], pair[0], rtol=0, atol=1e-5)
    other = play([OnnxPolicy(file, 1, TARGET + 50)], 300)[0]
    assert np.abs(other - pair[1]).max() > 1e-3  # what is asked for matters


@pytest.mark.parametrize("query", [3.0, 30.0])
@pytest.mark.parametrize("recency", [(0.4,), (0.8, 0.0)])
def test_heads_that_forget(tmp_path: Path, recency: tuple[float, ...], query: float) -> None:
    agent = make_aaren(heads=len(recency), recency=recency, query=query)
    file = exported(agent, tmp_path)
    ends = np.random.default_rng(1).random((300, 2)) < 0.02
    ends[0] = True
    pair = play([by_torch(agent, 2), OnnxPolicy(file, 2)], 300, ends)
    # Where several tokens keep weight, a score of 100, 1e-5 off in float32, shows.
    np.testing.assert_allclose(pair[1], pair[0], rtol=0, atol=1e-5 if query < 10 else 1e-4)
    for block in agent.sequence_model.blocks:
        block.mixer.recency = None  # type: ignore[assignment, union-attr]
    other = play([by_torch(agent, 2), OnnxPolicy(file, 2)], 300, ends)
    assert np.abs(other[0] - other[1]).max() > 1e-2  # forgetting matters


@pytest.mark.parametrize(
    ("kind", "recency", "query"),
    [
        ("hopper", (0.0,), 3.0),
        ("hopper", (0.8, 0.0), 3.0),
        ("hopper", (0.4,), 30.0),
        ("discrete from 3", (0.4,), 3.0),
        ("discrete from 3", (0.0,), 30.0),
        ("discrete from 3", (0.8, 0.0), 30.0),
    ],
)
def test_predicted_returns(
    tmp_path: Path, kind: str, recency: tuple[float, ...], query: float
) -> None:
    """The condition `max-return`: each policy acts on its own predictions."""
    shape = {"heads": len(recency), "recency": recency, "query": query}
    agent = make_aaren(condition="max-return", action_space=SPACES[kind], **shape)
    file = exported(agent, tmp_path)
    ends = np.random.default_rng(1).random((100, 3)) < 0.05
    policies = SteppingPolicy(agent, np.zeros(3)), agent.policy(3), OnnxPolicy(file, 3)
    by_layers, folded, in_onnx = play(list(policies), 100, ends)
    for other in (folded, in_onnx):
        np.testing.assert_allclose(other, by_layers, rtol=0, atol=1e-5 if query < 10 else 1e-4)
    predicted = policies[0].returns_to_go
    assert predicted.std() > 1
    for others in (policies[1].returns_to_go, policies[2].state()["return_to_go"][:, 0]):
        np.testing.assert_allclose(others, predicted, rtol=1e-4, atol=1e-3)
    assert not policies[2].card.asks_return
    with pytest.raises(UserError, match=r"target_return 5.0: this decision-aaren cannot be asked"):
        OnnxPolicy(file, 1, 5.0)


def test_no_predicted_return_is_larger_than_the_datas(tmp_path: Path) -> None:
    agent = make_aaren(condition="max-return")
    ends = np.random.default_rng(1).random((40, 8)) < 0.1
    free = agent.policy(8)
    play([free], 40, ends)
    limit = float(np.median(free.returns_to_go))
    agent.spec = dataclasses.replace(agent.spec, largest_return=limit)
    file = exported(agent, tmp_path)
    policies = SteppingPolicy(agent, np.zeros(8)), agent.policy(8), OnnxPolicy(file, 8)
    by_layers, folded, in_onnx = play(list(policies), 40, ends)
    for other in (folded, in_onnx):
        np.testing.assert_allclose(other, by_layers, rtol=0, atol=1e-5)
    predicted = policies[0].returns_to_go
    assert predicted.max() == pytest.approx(limit, rel=1e-6)
    assert predicted.min() < limit
    for others in (policies[1].returns_to_go, policies[2].state()["return_to_go"][:, 0]):
        np.testing.assert_allclose(others, predicted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["decision-lstm", "decision-min-gru"])
@pytest.mark.parametrize(
    ("kind", "condition"), [("hopper", "target"), ("discrete from 3", "max-return")]
)
def test_other_recurrent_agents(tmp_path: Path, name: str, kind: str, condition: str) -> None:
    agent = make_agent(name, action_space=SPACES[kind], condition=condition)
    ends = np.random.default_rng(1).random((100, 3)) < 0.05
    pair = play([by_torch(agent, 3), OnnxPolicy(exported(agent, tmp_path), 3)], 100, ends)
    np.testing.assert_allclose(pair[1], pair[0], rtol=0, atol=1e-5)
    assert pair[0].std() > 1e-3


@pytest.mark.parametrize("kind", ["a matrix", "discrete from 3"])
def test_what_was_executed_takes_the_choices_place(tmp_path: Path, kind: str) -> None:
    file = exported(make_aaren(action_space=SPACES[kind]), tmp_path)
    policies = [OnnxPolicy(file, 2) for _ in range(3)]
    rng = np.random.default_rng(0)
    past = [(rng.normal(size=(2, 11)), rng.normal(size=2)) for _ in range(4)]
    for policy in policies:
        own = policy.act(past[0][0])
    SPACES[kind].seed(0)
    executed = own
    while np.array_equal(executed, own):
        executed = np.stack([SPACES[kind].sample(), SPACES[kind].sample()])
    told, edited, untold = policies
    state = edited.state()
    state["previous_action"][...] = executed.reshape(2, -1)
    edited.load_state(state)
    first = told.act(*past[1], executed_actions=executed)
    assert np.array_equal(first, edited.act(*past[1]))
    untold.act(*past[1])
    actions = [np.stack([policy.act(*call) for call in past[2:]]) for policy in policies]
    assert np.array_equal(actions[0], actions[1])
    names = [name for name in told.state() if name.startswith("state")]
    assert any((told.state()[name] != untold.state()[name]).any() for name in names)


@pytest.mark.parametrize(
    ("kind", "executed", "message"),
    [
        ("hopper", np.zeros((2, 4)), r"must have shape \(2, 3\), got \(2, 4\)"),
        ("hopper", [[0, 0, 0], [0, np.nan, 0]], r"environment \[1\] are not finite"),
        ("discrete from 3", np.array([3, 7]), "choices from 3 to 6"),
        ("discrete from 3", np.array([2, 3]), "choices from 3 to 6"),
    ],
)
def test_what_cannot_have_been_executed(
    tmp_path: Path, kind: str, executed: Any, message: str
) -> None:
    policy = OnnxPolicy(exported(make_aaren(action_space=SPACES[kind]), tmp_path), 2)
    policy.act(np.ones((2, 11)))
    before = policy.state()
    with pytest.raises(UserError, match=message):
        policy.act(np.ones((2, 11)), np.ones(2), executed_actions=executed)
    assert all(np.array_equal(policy.state()[name], before[name]) for name in before)


@pytest.mark.parametrize("mask", [None, np.array([False, True, False])])
def test_a_reset_is_an_episodes_end(tmp_path: Path, mask: np.ndarray | None) -> None:
    file = exported(make_aaren(), tmp_path)
    by_reset, by_dones = OnnxPolicy(file, 3), OnnxPolicy(file, 3)
    rng = np.random.default_rng(0)
    for step in range(12):
        observations, rewards = rng.normal(size=(3, 11)), rng.normal(size=3)
        dones = np.zeros(3, bool)
        if step == 6:
            by_reset.reset(mask)
            dones = np.ones(3, bool) if mask is None else mask
            rewards = np.where(dones, np.nan, rewards)  # counts for nothing where one starts
        action = by_reset.act(observations, rewards if step else None, np.zeros(3, bool))
        assert np.array_equal(action, by_dones.act(observations, rewards if step else None, dones))
    with pytest.raises(UserError, match=r"shape \(3,\), got \(2,\)"):
        by_reset.reset(np.ones(2, bool))


def test_behavior_cloning(tmp_path: Path) -> None:
    agent = make_agent("behavior-cloning")
    policy = OnnxPolicy(exported(agent, tmp_path), 2)
    ends = np.zeros((20, 2), bool)
    pair = play([agent.policy(2), policy], 20, ends)
    np.testing.assert_allclose(pair[1], pair[0], rtol=0, atol=1e-6)
    assert policy.state_bytes == 0
    assert policy.state() == {}
    policy.load_state({})


def test_one_file_serves_every_batch(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    alone = play([OnnxPolicy(file)], 30)[0]
    for size in (2, 7):
        policy = OnnxPolicy(file, size)
        rng = np.random.default_rng(0)
        for step in range(30):
            observations, rewards = rng.normal(size=(1, 11)), rng.normal(size=1)
            action = policy.act(
                np.repeat(observations, size, 0), np.repeat(rewards, size) if step else None
            )
            np.testing.assert_allclose(action, np.repeat(alone[step], size, 0), rtol=0, atol=1e-6)


def test_a_finished_environment_alone_starts_afresh(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    ends = np.zeros((20, 3), bool)
    unbroken = play([OnnxPolicy(file, 3)], 20, ends)[0]
    ends[8, 1] = True
    broken = play([OnnxPolicy(file, 3)], 20, ends)[0]
    assert np.array_equal(broken[:, [0, 2]], unbroken[:, [0, 2]])
    assert np.array_equal(broken[:8, 1], unbroken[:8, 1])
    assert (np.abs(broken[8:, 1] - unbroken[8:, 1]).max(-1) > 1e-4).all()
    fresh = OnnxPolicy(file, 3)
    rng = np.random.default_rng(0)
    past = [(rng.normal(size=(3, 11)), rng.normal(size=3)) for _ in range(20)]
    for step in range(8, 20):
        action = fresh.act(past[step][0], past[step][1] if step > 8 else None)
        np.testing.assert_allclose(action[1], broken[step, 1], rtol=0, atol=1e-6)


def test_each_environment_has_its_own_target(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    observations = np.ones((2, 11))
    pair = OnnxPolicy(file, 2, [100.0, 500.0]).act(observations)
    assert np.abs(pair[0] - pair[1]).max() > 1e-3
    for row, target in enumerate((100.0, 500.0)):
        alone = OnnxPolicy(file, 1, target).act(observations[:1])
        np.testing.assert_allclose(alone[0], pair[row], rtol=0, atol=1e-6)
    with pytest.raises(UserError, match="one for all or 2"):
        OnnxPolicy(file, 2, [1.0, 2.0, 3.0])
    with pytest.raises(UserError, match="num_envs must be at least 1, got 0"):
        OnnxPolicy(file, 0)


def test_a_target_is_needed(tmp_path: Path) -> None:
    file = exported(make_aaren(target_returns=()), tmp_path)
    with pytest.raises(UserError, match="--target-return is needed"):
        OnnxPolicy(file)
    assert OnnxPolicy(file, 1, 5.0).act(np.ones((1, 11))).shape == (1, 3)


def test_state_bytes_are_pytorchs_and_do_not_grow(tmp_path: Path) -> None:
    agent = make_aaren(timestep_embedding="none", layers=2)
    policies: list[Policy] = [agent.policy(2), OnnxPolicy(exported(agent, tmp_path), 2)]
    sizes: list[set[int]] = [set(), set()]
    for step in range(300):
        for policy, seen in zip(policies, sizes, strict=True):
            policy.act(np.ones((2, 11)), np.ones(2) if step else None)
            seen.add(policy.state_bytes)
    # Two layers' (w, u), the last action, time and return-to-go, for two environments; the exported
    # step keeps the return in two numbers of 4 bytes, and counts in 4.
    both = 2 * 4 * (32 + 1) + 3 * 4
    assert sizes == [{2 * (both + 2 * 8)}, {2 * (both + 3 * 4)}]


def test_actions_are_the_callers_to_keep(tmp_path: Path) -> None:
    file = exported(make_aaren(), tmp_path)
    policy, twin = OnnxPolicy(file), OnnxPolicy(file)
    kept = policy.act(np.ones((1, 11)))
    twin.act(np.ones((1, 11)))
    before = kept.copy()
    kept += 1  # must not reach the previous action that the next step reads
    again, wanted = (each.act(np.ones((1, 11)), np.ones(1)) for each in (policy, twin))
    assert np.array_equal(again, wanted)
    assert np.array_equal(kept, before + 1)

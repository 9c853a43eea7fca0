"""Actions without bounds are standardised by the data, in everything that reads them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from exported_agents import exported, program_policy
from run_cases import scalars
from safetensors.torch import load_file, save_file

from aaren_rl.acting import Policy
from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, load_agent
from aaren_rl.data import Batch, Trajectory, TrajectoryDataset, load_trajectories
from aaren_rl.data.to_minari import write_minari
from aaren_rl.layers import ContinuousActions
from aaren_rl.runtime import OnnxPolicy
from aaren_rl.training import train

INF = np.inf
OBSERVATIONS = gym.spaces.Box(-INF, INF, (3,), np.float64)
ACTIONS = gym.spaces.Box(-INF, INF, (2,), np.float64)
MEAN, STD = np.array([300.0, -4000.0]), np.array([50.0, 300.0])
MIX = np.array([[0.8, 0.6, 0.0], [0.0, -0.6, 0.8]])  # both of unit variance
STEPS = 20


def recorded(episodes: int = 40) -> list[Trajectory]:
    """Actions with these means and deviations, known from the observation."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(episodes, STEPS + 1, 3))
    actions = MEAN + STD * (observations[:, :-1] @ MIX.T)
    return [
        Trajectory(seen, acted, np.ones(STEPS), False, True)
        for seen, acted in zip(observations, actions, strict=True)
    ]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_minari(
        "test/unbounded-v0",
        recorded(),
        observation_space=OBSERVATIONS,
        action_space=ACTIONS,
        env_spec=None,
        root=tmp_path_factory.mktemp("minari"),
    )


@pytest.fixture(scope="module", params=sorted(AGENTS))
def run(
    request: pytest.FixtureRequest,
    tiny: Callable[..., Any],
    folder: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> Path:
    """A run of a hundred updates."""
    out = tmp_path_factory.mktemp("run")
    train(
        tiny(
            out,
            agent=request.param,
            dataset=str(folder),
            environment="none",
            updates=100,
            batch_size=32,
            learning_rate=1e-2,
            log_every=1,
            model={"dropout": 0.0, "attention_dropout": 0.0, "width": 32},
        )
    )
    return out


def play(policy: Policy, observations: np.ndarray) -> np.ndarray:
    """Actions `[steps, 2]`, a reward of 1 for each."""
    return np.concatenate(
        [policy.act(each[None], np.ones(1) if i else None) for i, each in enumerate(observations)]
    )


def test_the_loss_starts_near_one_and_the_actions_are_learned(run: Path) -> None:
    """Learned raw, it would start at 8 million."""
    losses = [value for _, value in scalars(run)["training/loss"]]
    assert 0.7 < losses[0] < 1.6
    assert np.mean(losses[-5:]) < 0.15
    agent = load_agent(run / "last")
    seen = np.random.default_rng(1).normal(size=(5, 3))
    apart = (play(agent.policy(1), seen) - MEAN - STD * (seen @ MIX.T)) / STD
    assert np.sqrt((apart**2).mean()) < 0.5


def test_all_ways_of_acting_agree(run: Path, tmp_path: Path) -> None:
    agent = load_agent(run / "last")
    seen = np.random.default_rng(2).normal(size=(5, 3))  # as many as the context holds
    cloning = agent.name == "behavior-cloning"
    target = None if cloning else agent.spec.target_returns[0]
    policies = {str(m): agent.policy(1, mode=m) for m in ((None,) if cloning else agent.modes)}
    if agent.name in ("decision-aaren", "behavior-cloning"):
        policies["onnx"] = OnnxPolicy(exported(agent, tmp_path), 1, target)
        policies["torch.export"] = program_policy(agent, tmp_path, target)
    for way, policy in policies.items():
        actions = play(policy, seen)
        wanted = parallel(agent, seen, actions, target or 0.0)
        # of a standard deviation, or what float32 resolves of the mean
        resolved = np.maximum(1e-4 * STD, 4e-7 * np.abs(MEAN))
        assert (np.abs(actions - wanted) <= resolved).all(), way


def parallel(
    agent: Agent, observations: np.ndarray, actions: np.ndarray, target: float
) -> np.ndarray:
    steps = len(observations)
    batch = Batch(
        observations=torch.from_numpy(observations).float()[None],
        actions=torch.from_numpy(actions).float()[None],
        returns_to_go=target - torch.arange(steps).float()[None, :, None],
        timesteps=torch.arange(steps)[None],
        mask=torch.ones(1, steps, dtype=torch.bool),
    )
    with torch.no_grad():
        return agent.actions.decide(agent.predict(batch)[0]).numpy()


def test_the_statistics_are_the_datas_and_are_saved(run: Path, folder: Path) -> None:
    agent, data = load_agent(run / "last"), load_trajectories(folder)
    assert isinstance(agent.actions, ContinuousActions)
    for buffer, wanted in zip(
        (agent.actions.middle, agent.actions.reach), data.action_statistics(), strict=True
    ):
        np.testing.assert_array_equal(buffer.numpy(), wanted)
    np.testing.assert_allclose(agent.actions.middle, MEAN, rtol=0.02)
    np.testing.assert_allclose(agent.actions.reach, STD, rtol=0.1)
    codes = agent.actions.encode(torch.from_numpy(data.actions))
    np.testing.assert_allclose(codes.mean(0), 0, atol=1e-3)
    np.testing.assert_allclose(codes.std(0), 1, rtol=1e-3)


def make_agent(space: gym.spaces.Box, actions: np.ndarray | None = None) -> Agent:
    torch.manual_seed(0)
    spec = AgentSpec(OBSERVATIONS, space, target_returns=(1.0,))
    agent = AGENTS["decision-aaren"].make(AgentConfig(width=16, layers=1, context_length=5), spec)
    if actions is not None:
        data = TrajectoryDataset.from_episodes(
            [Trajectory(np.zeros((len(actions), 3)), actions, np.ones(len(actions)), True, False)],
            name="x",
            observation_space=OBSERVATIONS,
            action_space=space,
        )
        assert isinstance(agent.actions, ContinuousActions)
        agent.actions.standardise(*data.action_statistics())
    return agent.eval()


def test_the_bounds_that_there_are_hold() -> None:
    """One side of one component, both of another: all are standardised, then cut."""
    space = gym.spaces.Box(np.array([0, -1, -INF]), np.array([INF, 1, 500]), dtype=np.float64)
    rng = np.random.default_rng(0)
    actions = np.stack([rng.gamma(2, 30, 500), rng.uniform(-1, 1, 500), np.full(500, 7.0)], 1)
    agent = make_agent(space, actions)
    codec = agent.actions
    assert isinstance(codec, ContinuousActions)
    np.testing.assert_allclose(codec.middle, actions.mean(0), rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(codec.reach, [*actions.std(0)[:2], 1.0], rtol=1e-5)
    pushed = codec.decide(torch.tensor([[-1e4, -1e4, -3.0], [1e4, 1e4, 1e4], [0.0, 0.0, 0.0]]))
    assert pushed[0].tolist() == [0.0, -1.0, 4.0]
    assert pushed[1, 1:].tolist() == [1.0, 500.0]
    np.testing.assert_allclose(pushed[1, 0], actions.mean(0)[0] + 1e4 * actions.std(0)[0], 1e-5)
    np.testing.assert_allclose(pushed[2], actions.mean(0), rtol=1e-5, atol=1e-6)
    for action in agent.policy(4).act(np.random.default_rng(1).normal(size=(4, 3))):
        assert space.contains(action)


def test_an_agent_from_before_acts_as_it_was_trained(tmp_path: Path) -> None:
    """On raw actions: its file has no statistics of them."""
    old = make_agent(ACTIONS)
    old.save(tmp_path)
    weights = load_file(tmp_path / "agent.safetensors")
    assert weights.pop("actions.middle").tolist() == [0, 0]
    assert weights.pop("actions.reach").tolist() == [1, 1]
    save_file(weights, tmp_path / "agent.safetensors")
    card = json.loads((tmp_path / "agent.json").read_text())
    del card["sha256"]
    (tmp_path / "agent.json").write_text(json.dumps(card))
    seen = np.ones((2, 3))
    assert np.array_equal(load_agent(tmp_path).policy(2).act(seen), old.policy(2).act(seen))


def test_bounded_agents_have_the_same_files_as_before(tmp_path: Path) -> None:
    make_agent(gym.spaces.Box(-1, 1, (2,), np.float32)).save(tmp_path)
    names = load_file(tmp_path / "agent.safetensors").keys()
    assert {name for name in names if name.startswith("actions.")} == {
        "actions.low",
        "actions.high",
    }
    assert json.loads((tmp_path / "agent.json").read_text())["format"] == 1

"""Observations far from the data: clipped alike in every way of acting; constant columns."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from agent_cases import CONTINUOUS, OBSERVATIONS, make_agent, play
from exported_agents import exported, program_policy

from aaren_rl.acting import Policy
from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec, load_agent
from aaren_rl.data import Batch, Trajectory, TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.runtime import OnnxPolicy

ALL = tuple(AGENTS)
MEAN, STD = np.linspace(-1, 1, 4), np.linspace(0.5, 2, 4)  # of `make_agent`
EXPORTED = ("decision-aaren", "decision-lstm", "behavior-cloning")
SIDES = np.array([1, -1, 1, -1])


def policies(agent: Agent, folder: Path) -> dict[str, Policy]:
    """Every way of acting, one environment each."""
    cloning = agent.name == "behavior-cloning"
    modes = (None,) if cloning else agent.modes
    found = {str(mode): agent.policy(1, mode=mode) for mode in modes}
    if agent.name in EXPORTED:
        target = None if cloning else agent.spec.target_returns[0]
        found["onnx"] = OnnxPolicy(exported(agent, folder), 1, target)
        found["torch.export"] = program_policy(agent, folder, target)
    return found


def parallel(agent: Agent, observations: np.ndarray, actions: np.ndarray) -> np.ndarray:
    """What one pass over the whole episode decides, `[steps, action_size]`."""
    steps = len(observations)
    batch = Batch(
        observations=torch.from_numpy(observations).float()[None],
        actions=torch.from_numpy(actions).float()[None],
        returns_to_go=torch.full((1, steps, 1), 40.0),
        timesteps=torch.arange(steps)[None],
        mask=torch.ones(1, steps, dtype=torch.bool),
    )
    with torch.no_grad():
        return agent.actions.decide(agent.predict(batch)[0]).numpy()


def act(policy: Policy, observations: np.ndarray) -> np.ndarray:
    """Actions `[steps, action_size]` where nothing is earned."""
    return np.concatenate(
        [policy.act(each[None], np.zeros(1) if i else None) for i, each in enumerate(observations)]
    )


@pytest.mark.parametrize("clip", [10.0, 3.0])
@pytest.mark.parametrize("name", ALL)
def test_far_away_all_ways_of_acting_are_at_the_bound(
    name: str, clip: float, tmp_path: Path
) -> None:
    agent = make_agent(name, observation_clip=clip, layers=1)
    near = np.random.default_rng(0).normal(size=(4, 4))  # as many as the context holds
    far, bound = near.copy(), near.copy()
    far[2], bound[2] = MEAN + 1e6 * SIDES * STD, MEAN + clip * SIDES * STD
    inside = near.copy()
    inside[2] = MEAN + 0.5 * clip * SIDES * STD
    fresh = [policies(agent, tmp_path) for _ in range(3)]
    for way in fresh[0]:
        actions, at_bound, unclipped = (
            act(each[way], seen) for each, seen in zip(fresh, (far, bound, inside), strict=True)
        )
        np.testing.assert_allclose(actions, at_bound, rtol=0, atol=2e-5, err_msg=way)
        np.testing.assert_allclose(
            actions, parallel(agent, far, actions), rtol=0, atol=2e-5, err_msg=way
        )
        assert np.abs(unclipped[2] - actions[2]).max() > 1e-3, way


def test_without_a_clip_nothing_is_clipped(tmp_path: Path) -> None:
    """Neither in PyTorch nor in the graph."""
    agent = make_agent("behavior-cloning", observation_clip=math.inf, layers=1)
    seen = np.stack([MEAN + scale * SIDES * STD for scale in (10.0, 1e3)])
    torch.testing.assert_close(
        agent.normalise(torch.from_numpy(seen).float()),
        torch.from_numpy(np.stack([10 * SIDES, 1e3 * SIDES])).float(),
    )
    for name in EXPORTED:
        import onnx

        bounds = []
        for clip in (math.inf, 10.0):
            agent = make_agent(name, CONTINUOUS, observation_clip=clip, layers=1)
            graph = onnx.load(exported(agent, tmp_path)).graph
            bounds.append(sum(node.op_type in ("Max", "Clip") for node in graph.node))
        assert bounds[1] == bounds[0] + 1


def constant_data() -> TrajectoryDataset:
    """The first column is 5 in all steps."""
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(60, 4))
    observations[:, 0] = 5.0
    episode = Trajectory(observations, rng.uniform(-1, 1, (60, 2)), np.ones(60), False, True)
    return TrajectoryDataset.from_episodes(
        [episode], name="constant", observation_space=OBSERVATIONS, action_space=CONTINUOUS
    )


@pytest.mark.parametrize("name", ALL)
def test_a_constant_column_may_move_a_little(name: str) -> None:
    """Divided by 1e-6 it would be 1e5 standard deviations away."""
    spec = AgentSpec(OBSERVATIONS, CONTINUOUS, target_returns=(40.0,))
    torch.manual_seed(0)
    config = AgentConfig(width=32, layers=2, context_length=5)
    agent = AGENTS[name].make(config, spec, *constant_data().observation_statistics())
    seen = np.array([[5.0, 0.1, -0.2, 0.3]])
    moved = seen + np.array([0.1, 0, 0, 0])
    apart = agent.policy(1).act(moved) - agent.policy(1).act(seen)
    assert 0 < np.abs(apart).max() < 0.1


@pytest.mark.parametrize("name", ALL)
def test_raw_observations_are_not_clipped(name: str, tmp_path: Path) -> None:
    """Standard deviations mean nothing without statistics; a loaded agent does the same."""
    torch.manual_seed(0)
    spec = AgentSpec(OBSERVATIONS, CONTINUOUS, target_returns=(40.0,))
    agent = AGENTS[name].make(AgentConfig(width=16, layers=1, context_length=5), spec).eval()
    agent.save(tmp_path)
    seen = torch.tensor([[50.0, -3000.0, 0.0, 11.0]])
    for each in (agent, load_agent(tmp_path)):
        assert torch.equal(each.normalise(seen), seen)
        assert each.config.observation_clip == math.inf


@pytest.mark.parametrize("clip", [10.0, 2.5, math.inf])
def test_the_clip_is_saved(clip: float, tmp_path: Path) -> None:
    agent = make_agent("decision-aaren", observation_clip=clip)
    agent.save(tmp_path)
    text = (tmp_path / "agent.json").read_text()
    saved = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert saved["config"]["observation_clip"] == (None if math.isinf(clip) else clip)
    assert load_agent(tmp_path).config == agent.config


@pytest.mark.parametrize("name", ALL)
def test_an_agent_from_before_acts_as_it_was_trained(name: str, tmp_path: Path) -> None:
    agent = make_agent(name, observation_clip=math.inf)
    agent.save(tmp_path)
    file = tmp_path / "agent.json"
    card = json.loads(file.read_text())
    del card["config"]["observation_clip"]
    file.write_text(json.dumps(card))
    loaded = load_agent(tmp_path)
    assert loaded.config.observation_clip == math.inf
    seen = MEAN[None] + 100 * STD
    assert np.array_equal(loaded.policy(1).act(seen), agent.policy(1).act(seen))


@pytest.mark.parametrize("clip", [0.0, -1.0, math.nan])
def test_impossible_clips(clip: float) -> None:
    with pytest.raises(UserError, match="--observation-clip must be above 0"):
        replace(AgentConfig(), observation_clip=clip).check()


@pytest.mark.parametrize("settings", [{}, {"observation_clip": 1e200}])
def test_ordinary_observations_are_not_changed(settings: dict[str, Any]) -> None:
    clipped = make_agent("decision-aaren", **settings)
    free = make_agent("decision-aaren", observation_clip=math.inf)
    one, other = (play(each, "carry", [[6]]).actions for each in (clipped, free))
    assert np.array_equal(one, other)

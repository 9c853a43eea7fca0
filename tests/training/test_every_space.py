"""Every kind of observation with every kind of action: trained, saved, loaded, acted, exported."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.vector.utils import batch_space, iterate

import aaren_rl as arl
from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.episode import Trajectory
from aaren_rl.data.rows import Columns
from aaren_rl.data.to_minari import write_minari
from aaren_rl.errors import UserError
from aaren_rl.evaluation.rollouts import rollout
from aaren_rl.export.command import write_step
from aaren_rl.export.formats import ProgramPolicy
from aaren_rl.layout import Layout
from aaren_rl.runtime.card import read_card

LENGTH, ENVS = 4, 3
OBSERVATIONS = {
    "box": spaces.Box(-1, 1, (3,), np.float64),
    "bytes": spaces.Box(0, 255, (2, 3), np.uint8),
    "scalar": spaces.Box(-1, 1, (), np.float32),
    "discrete": spaces.Discrete(5, start=2),
    "multi-discrete": spaces.MultiDiscrete([3, 2], start=[1, -1]),
    "multi-binary": spaces.MultiBinary(4),
    "goal": spaces.Dict({k: spaces.Box(-9, 9, (2,)) for k in ("achieved_goal", "desired_goal")}),
    "nested": spaces.Dict(
        place=spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (1, 2)))),
        picture=spaces.Box(0, 255, (4, 4, 1), np.uint8),
    ),
}
ACTIONS = {
    "box": spaces.Box(-2, 3, (2,), np.float32),
    "unbounded": spaces.Box(-np.inf, np.inf, (2,), np.float64),
    "discrete": spaces.Discrete(3, start=4),
    "multi-discrete": spaces.MultiDiscrete([3, 2], start=[5, 0]),
    "multi-binary": spaces.MultiBinary(3),
    "dict": spaces.Dict(go=spaces.Box(-2, 2, (2,)), press=spaces.Discrete(3, start=1)),
    "tuple": spaces.Tuple((spaces.MultiBinary(2), spaces.Dict(a=spaces.Box(0, 9, (), np.int64)))),
}


class Anything(gym.Env[Any, Any]):
    """Random observations of any space; takes actions of any other, and of no other."""

    def __init__(self, observation_space: Any, action_space: Any) -> None:
        self.observation_space, self.action_space = observation_space, action_space

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.observation_space.seed(seed)
        self.t = 0
        return self.observation_space.sample(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        assert self.action_space.contains(action), action
        self.t += 1
        return self.observation_space.sample(), 1.0, self.t == LENGTH, False, {}


def batch_of(space: spaces.Space[Any], size: int, seed: int = 0) -> Any:
    batch = batch_space(space, size)
    batch.seed(seed)
    return batch.sample()


def episodes_of(seen: spaces.Space[Any], taken: spaces.Space[Any]) -> list[dict[str, Any]]:
    return [
        {
            "observations": batch_of(seen, LENGTH + 1, seed),
            "actions": batch_of(taken, LENGTH, seed),
            "rewards": np.ones(LENGTH),
            "terminated": True,
        }
        for seed in range(3)
    ]


def make_data(seen: spaces.Space[Any], taken: spaces.Space[Any]) -> TrajectoryDataset:
    return TrajectoryDataset.from_episodes(
        episodes_of(seen, taken), observation_space=seen, action_space=taken
    )


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("taken", ACTIONS)
@pytest.mark.parametrize("seen", OBSERVATIONS)
def test_trains_saves_loads_and_acts(seen: str, taken: str, tmp_path: Path) -> None:
    data = make_data(OBSERVATIONS[seen], ACTIONS[taken])
    small = {"width": 8, "layers": 1, "context_length": 3, "batch_size": 4, "updates": 2}
    run = arl.train(
        data,
        env=lambda: Anything(OBSERVATIONS[seen], ACTIONS[taken]),
        episodes=2,
        learning_rate=0.1,
        **small,  # type: ignore[arg-type]
    )
    assert len(run.scores) == 1
    assert all(np.isfinite(parameter.detach()).all() for parameter in run.agent.parameters())
    run.agent.save(tmp_path)
    loaded = arl.load_agent(tmp_path)
    for mode in ("carry", "window"):
        policies = [agent.policy(ENVS, 4.0, mode) for agent in (run.agent, loaded)]  # type: ignore[arg-type]
        for step in range(2):
            observations = batch_of(OBSERVATIONS[seen], ENVS, step)
            rewards = np.ones(ENVS) if step else None
            actions, same = (policy.act(observations, rewards) for policy in policies)
            each = list(iterate(batch_space(ACTIONS[taken], ENVS), actions))
            assert all(ACTIONS[taken].contains(action) for action in each)
            np.testing.assert_equal(actions, same)
        policies[0].act(observations, rewards, executed_actions=actions)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize(
    ("seen", "taken"),
    [
        pair
        for pair in itertools.product(OBSERVATIONS, ACTIONS)
        if pair[0] in ("box", "nested") or pair[1] in ("box", "tuple")
    ],
)
def test_exports(seen: str, taken: str, tmp_path: Path) -> None:
    from aaren_rl.runtime import OnnxPolicy

    # Each space with the plainest and the richest of the other side, which have parts of the graph
    # of their own. The agent with the smallest graph, since what is special to the spaces is the
    # same in all; ONNX once for each space, else the quicker format.
    name = "decision-aaren" if (seen, taken) == ("nested", "tuple") else "behavior-cloning"
    as_onnx = seen == "nested" or taken == "tuple"
    torch.manual_seed(0)
    config = AgentConfig(width=8, layers=1)
    spec = AgentSpec(OBSERVATIONS[seen], ACTIONS[taken], target_returns=(4.0,))
    agent = AGENTS[name].make(config, spec).eval()
    write_step(agent, tmp_path / "step", "onnx" if as_onnx else "torch-export")
    make = OnnxPolicy if as_onnx else ProgramPolicy
    policies = agent.policy(ENVS), make(tmp_path / "step", ENVS)
    for step in range(2):
        observations = batch_of(OBSERVATIONS[seen], ENVS, step)
        rewards = np.ones(ENVS) if step else None
        actions, others = (policy.act(observations, rewards) for policy in policies)
        layout = Layout.of(ACTIONS[taken])
        np.testing.assert_allclose(layout.flatten(actions), layout.flatten(others), atol=1e-5)
        assert str(actions) == str(others) or taken in ("box", "unbounded", "dict", "tuple")


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("taken", ["box", "unbounded", "dict", "tuple"])
@pytest.mark.parametrize("head", ["tanh-gaussian", "gaussian-mixture"])
def test_numbers_with_a_distribution(head: str, taken: str, tmp_path: Path) -> None:
    data = make_data(OBSERVATIONS["box"], ACTIONS[taken])
    small: dict[str, Any] = {"width": 8, "layers": 1, "batch_size": 4, "updates": 2}
    run = arl.train(data, env="none", head=head, learning_rate=0.1, **small)
    assert all(np.isfinite(parameter.detach()).all() for parameter in run.agent.parameters())
    run.agent.save(tmp_path)
    agents = run.agent, arl.load_agent(tmp_path)
    policies = [agent.policy(ENVS, 4.0, deterministic=False, seed=1) for agent in agents]
    for step in range(2):
        observations = batch_of(OBSERVATIONS["box"], ENVS, step)
        rewards = np.ones(ENVS) if step else None
        actions, same = (policy.act(observations, rewards) for policy in policies)
        np.testing.assert_equal(actions, same)
        each = list(iterate(batch_space(ACTIONS[taken], ENVS), actions))
        assert all(ACTIONS[taken].contains(action) for action in each)


@pytest.mark.parametrize("taken", ["box", "dict"])
def test_a_distribution_is_exported_as_its_mean_action(taken: str, tmp_path: Path) -> None:
    name = "decision-aaren" if taken == "box" else "behavior-cloning"
    config = AgentConfig(width=8, layers=1, head="gaussian-mixture")
    spec = AgentSpec(OBSERVATIONS["box"], ACTIONS[taken], target_returns=(4.0,))
    agent = AGENTS[name].make(config, spec).eval()
    write_step(agent, tmp_path / "step", "torch-export")
    assert "nothing is drawn" in read_card(tmp_path / "step").outputs[0].meaning
    policies = agent.policy(ENVS), ProgramPolicy(tmp_path / "step", ENVS)
    observations, layout = batch_of(OBSERVATIONS["box"], ENVS), Layout.of(ACTIONS[taken])
    actions, others = (layout.flatten(policy.act(observations)) for policy in policies)
    np.testing.assert_allclose(actions, others, atol=1e-5)


def test_layouts_are_inverse() -> None:
    for space in [*OBSERVATIONS.values(), *ACTIONS.values()]:
        batch, layout = batch_of(space, 5), Layout.of(space)
        back = layout.unflatten(layout.flatten(batch, np.float64))
        np.testing.assert_equal(back, batch)
        assert Layout.from_json(layout.to_json()).form == layout.form


def test_own_dtypes_in_memory_and_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAREN_RL_CACHE", str(tmp_path / "cache"))
    seen, taken = OBSERVATIONS["nested"], ACTIONS["dict"]
    data = make_data(seen, taken)
    assert isinstance(data.observations, Columns)
    assert [each.dtype for each in data.observations.arrays] == [np.uint8, np.float32]
    single = make_data(OBSERVATIONS["bytes"], taken)
    assert single.observations.dtype == np.uint8
    episodes = (
        Trajectory(e["observations"], e["actions"], e["rewards"], True, False)
        for e in episodes_of(seen, taken)
    )
    folder = write_minari(
        "own/parts-v0", episodes, observation_space=seen, action_space=taken, root=tmp_path
    )
    for where in ("memory", "disk"):
        same = arl.load_dataset(folder, on=where)  # type: ignore[arg-type]
        for field in ("observations", "actions", "returns_to_go"):
            np.testing.assert_array_equal(getattr(same, field)[:], getattr(data, field)[:])
        half = same.subset([2, 0])
        np.testing.assert_array_equal(half.observations[:LENGTH], data.observations[2 * LENGTH :])
        found = same.observation_statistics(), data.observation_statistics()
        np.testing.assert_allclose(*found, rtol=1e-6)


def test_what_no_agent_knows_is_refused() -> None:
    text = spaces.Dict(a=spaces.Discrete(2), b=spaces.Text(5))
    for wrong in ({"seen": text}, {"taken": text}, {"taken": spaces.Sequence(spaces.Discrete(2))}):
        seen, taken = ({"seen": OBSERVATIONS["box"], "taken": ACTIONS["box"]} | wrong).values()
        with pytest.raises(UserError, match=r"(Text|Sequence).*only Box, Discrete"):
            TrajectoryDataset.from_episodes(
                episodes_of(OBSERVATIONS["box"], ACTIONS["box"]),
                observation_space=seen,
                action_space=taken,
            )
        with pytest.raises(UserError, match=r"(observations|actions): .*only Box, Discrete"):
            AgentSpec(seen, taken)


WRONG: dict[str, tuple[Any, str]] = {
    "part": ({"place": (np.zeros(1), np.zeros((1, 1, 2)))}, "no part 'picture'"),
    "choice": (
        {"place": (np.full(1, 3), np.zeros((1, 1, 2))), "picture": np.zeros((1, 4, 4, 1))},
        "place/0: a value out of range: integers from 0 to 2",
    ),
    "shape": (
        {"place": (np.zeros(1), np.zeros((1, 2))), "picture": np.zeros((1, 4, 4, 1))},
        r"place/1: shape \[1, 2\]",
    ),
    "array": (np.zeros((1, 19)), "no part"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_observations_are_refused_by_part(case: str) -> None:
    given, message = WRONG[case]
    spec = AgentSpec(OBSERVATIONS["nested"], ACTIONS["box"], target_returns=(1.0,))
    agent = AGENTS["decision-aaren"].make(AgentConfig(width=8, layers=1), spec)
    with pytest.raises(UserError, match=f"observations: .*{message}"):
        agent.policy(1).act(given)


@pytest.mark.filterwarnings("ignore")
def test_another_environment_is_refused() -> None:
    spec = AgentSpec(OBSERVATIONS["goal"], ACTIONS["dict"], target_returns=(1.0,))
    agent = AGENTS["decision-aaren"].make(AgentConfig(width=8, layers=1), spec)
    for seen, taken, word in (("nested", "dict", "observations"), ("goal", "tuple", "actions")):
        env = Anything(OBSERVATIONS[seen], ACTIONS[taken])
        with pytest.raises(UserError, match=word):
            rollout(agent, env, episodes=1)

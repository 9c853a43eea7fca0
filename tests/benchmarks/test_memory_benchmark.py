"""The memory benchmark's shortcut against acting step by step, and its whole path once."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from gymnasium.spaces import Box, Discrete
from rich.console import Console

from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec, DecisionAgent
from aaren_rl.data.sampling import pack
from aaren_rl.envs.memory.experts import expert_dataset
from aaren_rl.envs.memory.tmaze import VectorPassiveTMaze
from benchmarks import memory
from benchmarks.memory_corridor import (
    act_through,
    cost_of_steps,
    maze,
    success_by_stepping,
    success_by_stretches,
)

CARRIED = ("decision-aaren", "decision-transformer", "decision-lstm", "decision-min-gru")


def restless_agent(name: str) -> DecisionAgent:
    """Random weights, so large that it does something else at nearly every step."""
    torch.manual_seed(2)
    env = VectorPassiveTMaze(1)
    config = AgentConfig(layers=2, width=16, heads=2, timestep_embedding="none")
    seen, taken = env.single_observation_space, env.single_action_space
    assert isinstance(seen, Box)
    assert isinstance(taken, Discrete)
    agent = AGENTS[name].make(config, AgentSpec(seen, taken, returns_scale=1.0)).eval()
    assert isinstance(agent, DecisionAgent)
    for parameter in agent.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.7)
    data = expert_dataset(maze(40, 0.5), 16)
    with torch.no_grad():  # no action is the usual one
        usual = agent.predict(pack(data, np.arange(16))).mean((0, 1))
        assert isinstance(agent.head, torch.nn.Linear)
        agent.head.bias.sub_(usual)
    return agent


@pytest.mark.parametrize("name", CARRIED)
def test_stretches_give_the_actions_of_single_steps(name: str) -> None:
    agent, steps = restless_agent(name), 40
    env = VectorPassiveTMaze(8, length=steps, noise=0.5, autoreset_mode="Disabled")
    policy = agent.policy(8, 1.0, "carry")
    observations, _ = env.reset(seed=3)
    rewards, dones = None, np.ones(8, bool)
    seen, taken = [], []
    for _ in range(steps):
        seen.append(observations)
        taken.append(policy.act(observations, rewards, dones))
        observations, rewards, _, _, _ = env.step(taken[-1])
        dones = np.zeros(8, bool)
    changes = np.diff(taken, axis=0) != 0
    assert changes.mean() > 0.05  # or nothing would be tested
    state, stretches = None, []
    for start in range(0, steps, 16):
        part = np.stack(seen[start : start + 16], axis=1)
        with torch.inference_mode():
            actions, state = act_through(agent, part, start, state)
        stretches.append(actions)
    np.testing.assert_array_equal(np.concatenate(stretches, axis=1), np.stack(taken, axis=1))


def test_success_is_that_of_acting() -> None:
    shares = []
    for name in CARRIED:
        agent = restless_agent(name)
        for length in (2, 17, 60):
            stepped = success_by_stepping(agent, "carry", length, 32, 0.5, seed=5)
            assert success_by_stretches(agent, length, 32, 0.5, seed=5, stretch=16) == stepped
            shares.append(stepped)
    assert len(set(shares)) > 3  # or nothing would be tested


def test_what_a_step_costs() -> None:
    for name, grows in (("decision-aaren", False), ("decision-transformer", True)):
        costs = cost_of_steps(restless_agent(name), "carry", [5, 50], 0.5)
        assert list(costs) == [5, 50]
        assert all(cost["microseconds"] > 0 for cost in costs.values())
        assert (costs[50]["state_bytes"] > costs[5]["state_bytes"]) == grows


def test_the_benchmark_from_training_to_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "LENGTHS", (5, 12))
    file = tmp_path / "out" / "memory.json"
    memory.main(memory.MemoryConfig(quick=True, mazes=4, episodes=30, updates=3, json=file))
    found = json.loads(file.read_text())
    assert {"command", "machine", "wall_seconds", "settings"} < set(found)
    assert list(found["contenders"]) == ["Aaren, carry", "Transformer, window 20"]
    for each in found["contenders"].values():
        assert [row["length"] for row in each["rows"]] == [5, 12]
        assert all(0 <= row["success"] <= 1 and row["mazes"] == 4 for row in each["rows"])
    assert file.with_suffix(".png").stat().st_size > 10_000


def test_the_table_leaves_open_what_was_not_run() -> None:
    row = {"length": 20, "success": 1.0, "microseconds": 3.0, "state_bytes": 7}
    short = {"parameters": 9, "train_seconds": 1.0, "rows": [row]}
    long = {**short, "rows": [row, {"length": 1000, "success": 0.25}]}  # not stepped so far
    console = Console(width=160, record=True)
    memory.report({"contenders": {"one": short, "two": long}}, console)
    lines = console.export_text().splitlines()
    assert [" - " in line for line in lines if "one" in line or "two" in line] == [True, False]
    assert any("0.25" in line for line in lines if "two" in line)

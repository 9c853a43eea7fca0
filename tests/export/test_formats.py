"""The ONNX graph: standard, small, and one of any batch size."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
from exported_agents import make_aaren, make_agent

from aaren_rl.agents import Agent
from aaren_rl.export.formats import onnx_graph
from aaren_rl.export.steps import step_of

SHAPES: list[dict[str, Any]] = [
    {},
    {"heads": 4},
    {"query": 30.0},
    {"heads": 4, "query": 30.0},
    {"timestep_embedding": "sinusoidal"},
    {"timestep_embedding": "none", "max_episode_length": 100},
    {"observation_space": gym.spaces.Box(-np.inf, np.inf, (111,), np.float64)},
    {"action_space": gym.spaces.Discrete(6)},
]


def graph_of(agent: Agent) -> bytes:
    return onnx_graph(step_of(agent))


@pytest.mark.parametrize("shape", SHAPES)
def test_a_graph_is_standard_and_no_larger_than_the_weights(shape: dict[str, Any]) -> None:
    agent = make_aaren(**{"width": 128, "layers": 2, **shape})
    content = graph_of(agent)
    assert len(content) <= 4 * agent.num_parameters + 64 * 1024
    if agent.config.heads == 1:  # keys, query and output projection are multiplied out
        assert len(content) < 4 * agent.num_parameters - 2 * 3 * 4 * 128 * 128 + 128 * 1024
    model = onnx.load_from_string(content)
    assert {node.domain for node in model.graph.node} == {""}
    assert [each.domain for each in model.opset_import] == [""]
    onnx.checker.check_model(model, full_check=True)
    assert len(model.graph.node) <= 82  # 71 with one head; a node's fixed cost is most of its time


@pytest.mark.parametrize("name", ["decision-aaren", "behavior-cloning", "decision-lstm"])
def test_inputs_and_outputs_are_those_of_the_step(name: str) -> None:
    step = step_of(make_agent(name))
    graph = onnx.load_from_string(onnx_graph(step)).graph
    for found, said in ((graph.input, step.inputs), (graph.output, step.outputs)):
        assert [each.name for each in found] == [each.name for each in said]
        for value, tensor in zip(found, said, strict=True):
            shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert tuple(shape) == tensor.shape
            assert tensor.shape[0] == "batch"
    assert set(step.state) <= {each.name for each in step.outputs}
    assert set(step.state.values()) == set(step.reset_state)


def test_the_same_agent_gives_the_same_bytes() -> None:
    once, again = (graph_of(make_aaren()) for _ in range(2))
    assert once == again
    assert once != graph_of(make_aaren(seed=1))
    assert b".py" not in once  # no stack traces, which would name folders of this machine


def test_predicted_returns_share_the_timestep_table() -> None:
    agent = make_aaren(condition="max-return", max_episode_length=5000)
    assert len(graph_of(agent)) <= 4 * agent.num_parameters + 64 * 1024

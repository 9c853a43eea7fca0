"""The ONNX graph: standard, small, and one of any batch size."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import onnx
import pytest
from exported_agents import make_aaren, make_agent

from aaren_rl.export.interface import interface_of
from aaren_rl.export.onnx_step import onnx_step

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


@pytest.mark.parametrize("shape", SHAPES)
def test_a_file_is_no_larger_than_the_weights(shape: dict[str, Any]) -> None:
    agent = make_aaren(**{"width": 128, "layers": 3, **shape})
    size = len(onnx_step(agent).SerializeToString())
    assert size <= 4 * agent.num_parameters + 64 * 1024
    if agent.config.heads == 1:  # keys, query and output projection are multiplied out
        assert size < 4 * agent.num_parameters - 3 * 3 * 4 * 128 * 128 + 128 * 1024


@pytest.mark.parametrize("shape", SHAPES)
def test_only_standard_operators(shape: dict[str, Any]) -> None:
    model = onnx_step(make_aaren(**shape))
    assert {node.domain for node in model.graph.node} == {""}
    assert [each.domain for each in model.opset_import] == [""]
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("name", ["decision-aaren", "behavior-cloning"])
def test_inputs_and_outputs_are_those_of_the_interface(name: str) -> None:
    agent = make_agent(name)
    model, interface = onnx_step(agent), interface_of(agent)  # type: ignore[arg-type]
    for found, said in (
        (model.graph.input, interface.inputs),
        (model.graph.output, interface.outputs),
    ):
        assert [each.name for each in found] == [each.name for each in said]
        for value, tensor in zip(found, said, strict=True):
            shape = [dim.dim_param or dim.dim_value for dim in value.type.tensor_type.shape.dim]
            assert tuple(shape) == tensor.shape
            assert tensor.shape[0] == "batch"
    assert set(interface.state) <= {each.name for each in interface.outputs}
    assert set(interface.state.values()) <= {each.name for each in interface.inputs}


def test_the_same_agent_gives_the_same_bytes(tmp_path: Path) -> None:
    once, again = (onnx_step(make_aaren()).SerializeToString() for _ in range(2))
    assert once == again
    assert once != onnx_step(make_aaren(seed=1)).SerializeToString()

"""Action errors by position."""

import numpy as np
import pytest
import torch

from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec
from aaren_rl.data import load_trajectories
from aaren_rl.evaluation.length import length_errors
from aaren_rl.training.build import split
from aaren_rl.training.evaluator import offline_metrics


@pytest.fixture(scope="module")
def data():
    return load_trajectories("aaren-rl/hopper-small-v0").subset([8, 22, 31])


def make(name, data, **settings):
    torch.manual_seed(0)
    spec = AgentSpec(data.observation_space, data.action_space)
    config = AgentConfig(layers=1, width=16, context_length=10, **settings)
    return AGENTS[name].make(config, spec, *data.observation_statistics())


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_errors_are_those_of_stepping(name, data):
    """Carry and window errors of one episode's steps, by acting on its recorded observations."""
    agent = make(name, data)
    for parameter in agent.sequence_model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)  # so that the two differ
    one = data.subset([0])
    rows = length_errors(agent, one)
    assert rows[0].first == 0
    assert rows[-1].last >= one.num_steps
    step = rows[0]  # step 0 alone: no past, so both modes are the same prediction
    assert step.steps == 1
    assert step.carry == pytest.approx(step.window, rel=1e-5)
    for mode in ("carry", "window"):
        policy = agent.policy(1, float(one.returns_to_go[0]), mode)
        episode = one.episode(0)
        action = policy.act(episode.observations[:1].reshape(1, -1))
        expected = float(np.square(action[0] - episode.actions[0]).mean())
        assert getattr(step, mode) == pytest.approx(expected, rel=1e-4)
    inside = rows[1]  # steps 1 to 9, all within the context
    assert inside.carry == pytest.approx(inside.window, rel=1e-4)
    assert any(abs(row.carry - row.window) > 1e-6 for row in rows[2:])


def test_a_memoryless_agent_errs_alike_and_nothing_changes(data):
    agent = make("behavior-cloning", data).train()
    rows = length_errors(agent, data)
    assert agent.training
    for row in rows:
        assert row.carry == pytest.approx(row.window, rel=1e-5)
    assert rows == length_errors(agent, data)


def test_split_is_the_same_for_everyone_and_loses_nothing(data):
    training, held_out = split(data, 0.05)
    assert held_out.num_episodes == 1
    assert training.num_episodes == 2
    assert training.num_steps + held_out.num_steps == data.num_steps
    again = split(data, 0.05)[1]
    np.testing.assert_array_equal(again.observations, held_out.observations)
    almost_all, rest = split(data, 0.99)
    assert (almost_all.num_episodes, rest.num_episodes) == (1, 2)


def test_offline_metrics_have_a_scalar_for_each_place_and_head(data):
    agent = make("decision-aaren", data, heads=2)
    scalars = offline_metrics(agent, data).scalars()
    assert "held_out/error_carry/steps_0_1" in scalars
    assert "held_out/error_window/steps_200_500" in scalars
    margin = scalars["memory/margin/layer_0_head_1"]
    assert scalars["memory/horizon/layer_0_head_1"] == pytest.approx(np.exp(margin))
    for other in (make("decision-transformer", data), make("decision-aaren", data, mixer="lstm")):
        assert offline_metrics(other, data).memory is None

"""The memory's horizon: scores, margins and weights of an Aaren agent's tokens."""

import numpy as np
import pytest
import torch

from aaren_rl.agents import AgentConfig, AgentSpec, BehaviorCloning, DecisionAaren
from aaren_rl.data import load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.evaluation.memory import episode_batch, memory_horizon, plot_memory, token_scores

LAYERS, HEADS = 2, 2


@pytest.fixture(scope="module")
def data():
    return load_trajectories("aaren-rl/hopper-small-v0").subset([8, 22])


@pytest.fixture(scope="module")
def agent(data):
    torch.manual_seed(0)
    spec = AgentSpec(data.observation_space, data.action_space)
    agent = DecisionAaren(AgentConfig(layers=LAYERS, heads=HEADS, width=16), spec)
    for parameter in agent.sequence_model.parameters():
        if parameter.dim() == 2:
            torch.nn.init.normal_(parameter, std=0.3)
    return agent


def test_weights_are_those_of_the_state_at_the_end(agent, data):
    batch = episode_batch(data, 0)
    memory = memory_horizon(agent, batch)
    tokens = 3 * data.lengths[0]
    assert memory.scores.shape == (LAYERS, HEADS, tokens)
    assert memory.held.shape == (LAYERS, HEADS, data.lengths[0])
    np.testing.assert_allclose(memory.held.sum(-1), 1, rtol=1e-12)
    with torch.no_grad():
        embedded = agent.eval().embed(
            batch.returns_to_go, batch.observations, batch.actions, batch.timesteps
        )
        _, state = agent.read(embedded)
    for layer in range(LAYERS):
        normalizer = state.layers[layer].log_normalizer()[0].double().numpy()
        expected = np.log(np.exp(memory.scores[layer]).sum(-1))
        np.testing.assert_allclose(expected, normalizer, atol=1e-4)


def test_margin_is_to_the_runner_up(agent, data):
    memory = memory_horizon(agent, episode_batch(data, 1))
    ordered = np.sort(memory.scores, axis=-1)
    np.testing.assert_allclose(memory.margin, ordered[..., -1] - ordered[..., -2])
    np.testing.assert_allclose(memory.horizon, np.exp(memory.margin))
    np.testing.assert_array_equal(memory.best, memory.scores.argmax(-1))


def test_after_the_horizon_half_is_lost():
    """The definition: among exp(margin) tokens like the runner-up the best one weighs a half."""
    margin = 5.0
    others = round(np.exp(margin))
    scores = torch.cat([torch.tensor([margin]), torch.zeros(others)])
    assert float(scores.softmax(0)[0]) == pytest.approx(0.5, abs=1e-3)


def test_leaves_the_agent_as_it_was(agent, data):
    agent.train()
    before = len(agent.sequence_model.blocks[0].mixer._forward_pre_hooks)
    first = token_scores(agent, episode_batch(data, 0))
    assert agent.training
    assert len(agent.sequence_model.blocks[0].mixer._forward_pre_hooks) == before
    agent.eval()
    assert first.equal(token_scores(agent, episode_batch(data, 0))), "dropout must be off"


def test_only_aaren_has_scores(data):
    spec = AgentSpec(data.observation_space, data.action_space)
    with pytest.raises(UserError, match="behavior-cloning has no scores"):
        token_scores(BehaviorCloning(AgentConfig(width=8), spec), episode_batch(data, 0))


def test_the_picture_has_a_panel_for_each_head(agent, data):
    memory = memory_horizon(agent, episode_batch(data, 0))
    figure = plot_memory(memory)
    assert len(figure.axes) == LAYERS * HEADS
    [filled] = figure.axes[3].collections
    corners = set(map(tuple, filled.get_paths()[0].vertices.round(9)))
    for step, held in enumerate(memory.held[1, 1].round(9)):
        assert {(step - 0.5, held), (step + 0.5, held)} <= corners

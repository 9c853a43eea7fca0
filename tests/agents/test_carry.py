"""Training on segments, the state carried from one to the next."""

import pytest
import torch

from aaren_rl.agents import AGENTS, AgentConfig, AgentSpec, Carry
from aaren_rl.data import EpisodeSampler, StreamSampler, load_trajectories

DATA = "aaren-rl/hopper-small-v0"


def small_agent(name):
    data = load_trajectories(DATA)
    spec = AgentSpec(data.observation_space, data.action_space)
    torch.manual_seed(0)
    config = AgentConfig(layers=2, width=32, heads=2, dropout=0.0, attention_dropout=0.0)
    return AGENTS[name].make(config, spec, *data.observation_statistics())


def gradients(agent):
    return {name: parameter.grad.clone() for name, parameter in agent.named_parameters()}


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_without_detaching_the_gradient_is_that_of_the_whole_episode(name):
    agent = small_agent(name)
    data = load_trajectories(DATA).subset([8])
    agent(EpisodeSampler(data, batch_steps=1, seed=0).sample()).backward()
    expected = gradients(agent)

    agent.zero_grad()
    stream = StreamSampler(data, batch_size=1, context_length=23, seed=0)
    carry = Carry(detach=False)
    total, steps = torch.zeros(()), 0
    while steps < data.num_steps:
        batch = stream.sample()
        count = int(batch.mask.sum())
        total = total + agent(batch, carry) * count
        steps += count
    (total / steps).backward()
    for key, gradient in gradients(agent).items():
        scale = expected[key].abs().max().clamp(min=1e-6)
        assert (gradient - expected[key]).abs().max() <= 2e-4 * scale, key


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer"])
def test_segments_predict_what_the_whole_episode_does(name):
    agent = small_agent(name).eval()
    data = load_trajectories(DATA).subset([8, 22])
    stream = StreamSampler(data, batch_size=1, context_length=10, seed=0)
    state = None
    parts: dict[int, list[torch.Tensor]] = {}
    with torch.no_grad():
        for _ in range(40):  # 187 + 202 steps: 19 + 21 segments, across an episode's end
            batch = stream.sample()
            predictions, state = agent.predict_from(batch, state)
            parts.setdefault(len(parts) if batch.starts[0] else len(parts) - 1, []).append(
                predictions[batch.mask]
            )
        whole = EpisodeSampler(data, batch_steps=1, seed=0)
        by_length = {}
        for _ in range(2):
            batch = whole.sample()
            by_length[int(batch.mask.sum())] = agent.predict(batch)[batch.mask]
    assert len(parts) == 2
    for pieces in parts.values():
        stepped = torch.cat(pieces)
        torch.testing.assert_close(stepped, by_length[len(stepped)], atol=2e-6, rtol=1e-5)


def test_detaching_keeps_memory_constant():
    agent = small_agent("decision-aaren")
    data = load_trajectories(DATA)
    stream = StreamSampler(data, batch_size=2, context_length=5, seed=0)
    carry = Carry()
    sizes = []
    for _ in range(5):
        agent(stream.sample(), carry).backward()
        assert all(not tensor.requires_grad for tensor in carry.state.tensors().values())
        sizes.append(carry.state.nbytes)
    assert len(set(sizes)) == 1

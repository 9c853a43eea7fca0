"""Actions in the environment's numbers and the network's; the loss; observations of any scale."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import OBSERVATIONS, SEQUENCE_AGENTS, SPACES, make_agent
from torch import Tensor, nn

from aaren_rl.agents import AGENTS, Agent, AgentConfig, AgentSpec
from aaren_rl.data import Batch
from aaren_rl.errors import UserError
from aaren_rl.layers import make_head

ALL = (*SEQUENCE_AGENTS, "behavior-cloning")
INF = np.inf


def box(low: Any, high: Any, dtype: type = np.float32) -> gym.spaces.Box:
    return gym.spaces.Box(np.asarray(low, dtype), np.asarray(high, dtype), dtype=dtype)


BOXES = {
    "symmetric": box([-2.0], [2.0]),
    "asymmetric": box([-1.0, 0.0, 5.0], [3.0, 0.5, 5.25]),
    "two dimensions": box([[-1, -2, -3], [0, 0, 0]], [[1, 2, 3], [4, 5, 6]]),
    "unbounded": box([-INF, -INF], [INF, INF]),
    "half bounded": box([0.0, -INF], [INF, 1.0]),
    "partly bounded": box([-0.5, -INF], [0.5, INF]),
    "double": box([-0.1, 0.3], [0.1, 0.7], np.float64),
}
BOUNDED = ("symmetric", "asymmetric", "two dimensions", "double")
boxes = pytest.mark.parametrize("box_name", sorted(BOXES))


@boxes
@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("push", [-1e4, 0.0, 1e4])
def test_actions_are_inside_the_space(name: str, box_name: str, push: float) -> None:
    """Also when the network is sure beyond all measure."""
    space = BOXES[box_name]
    agent = make_agent(name, space)
    head = [module for module in agent.head.modules() if isinstance(module, nn.Linear)][-1]
    nn.init.constant_(head.bias, push)
    modes = agent.modes if agent.has_memory else (None,)
    for mode in modes:
        policy = agent.policy(3, mode=mode)
        for step in range(3):
            actions = policy.act(np.ones((3, 4)) * step, np.ones(3) if step else None)
            assert actions.shape == (3, *space.shape)
            assert actions.dtype == space.dtype
            assert all(space.contains(action) for action in actions), actions


@pytest.mark.parametrize("box_name", BOUNDED)
def test_bounds_are_stretched_to_one(box_name: str) -> None:
    space = BOXES[box_name]
    codec = make_head(space)
    low, high = (torch.tensor(b.ravel(), dtype=torch.float32) for b in (space.low, space.high))
    middle = (low + high) / 2
    for action, code in ((low, -1.0), (high, 1.0), (middle, 0.0), ((middle + high) / 2, 0.5)):
        torch.testing.assert_close(
            codec.encode(action), torch.full_like(action, code), rtol=0, atol=3e-6
        )
        torch.testing.assert_close(
            codec.decide(torch.full_like(action, code)), action, rtol=1e-6, atol=1e-6
        )


@pytest.mark.parametrize("box_name", sorted(set(BOXES) - set(BOUNDED)))
def test_without_bounds_actions_are_as_they_are(box_name: str) -> None:
    codec = make_head(BOXES[box_name])
    actions = torch.tensor([[0.25, -0.4], [0.0, 0.5]])
    torch.testing.assert_close(codec.encode(actions), actions, rtol=0, atol=1e-7)
    torch.testing.assert_close(codec.decide(actions), actions, rtol=0, atol=1e-7)


def test_a_box_of_no_width_is_no_division_by_zero() -> None:
    """An action that has one value only is predicted as that value."""
    codec = make_head(box([1.0, -1.0], [1.0, 1.0]))
    fixed = torch.tensor([[1.0, 0.5]])
    assert torch.isfinite(codec.encode(fixed)).all()
    torch.testing.assert_close(codec.decide(torch.tensor([[0.3, 0.5]])), fixed)


def test_integer_boxes_get_the_nearest_integer() -> None:
    space = gym.spaces.Box(-2, 5, (4,), np.int64)
    head = make_head(space)
    wanted = torch.tensor([[-1.9, 0.6, 3.49, 4.9]])
    decided = head.decide(head.encode(wanted))
    np.testing.assert_array_equal(head.to_numpy(decided), [[-2, 1, 3, 5]])
    assert space.contains(head.to_numpy(decided)[0])


def test_discrete_actions_start_where_the_space_says() -> None:
    space = gym.spaces.Discrete(4, start=-2)
    codec = make_head(space)
    assert codec.encode(torch.tensor([-2, 1])).tolist() == [0, 3]
    logits = torch.tensor([[0.0, 3, 1, 1], [0, 0, 0, 9.0]])
    decided = codec.to_numpy(codec.decide(logits))
    assert decided.tolist() == [-1, 1]
    assert all(space.contains(action) for action in decided)


def make_batch(agent: Agent, time: int = 6, rows: int = 3) -> Batch:
    """Random steps; the last of some rows are padding (zeros, as the sampler makes it)."""
    rng = np.random.default_rng(3)
    space = agent.spec.action_space
    if isinstance(space, gym.spaces.Discrete):
        actions = torch.from_numpy(rng.integers(space.n, size=(rows, time)) + int(space.start))
    else:
        actions = torch.from_numpy(
            rng.uniform(space.low, space.high, (rows, time, *space.shape))
        ).float()
    mask = torch.ones(rows, time, dtype=torch.bool)
    mask[0, 2:] = False
    mask[1, 5:] = False
    batch = Batch(
        observations=torch.from_numpy(rng.normal(size=(rows, time, 4))).float(),
        actions=actions,
        returns_to_go=torch.from_numpy(rng.normal(size=(rows, time, 1)) * 10).float(),
        timesteps=torch.arange(time).expand(rows, -1).clone(),
        mask=mask,
    )
    for part in batch[:4]:
        part[~mask] = 0
    return batch


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_the_loss_is_the_mean_over_real_steps(name: str, kind: str) -> None:
    agent = make_agent(name, SPACES[kind])
    batch = make_batch(agent)
    errors = []
    predictions = agent.predict(batch).detach().double()
    for row, step in batch.mask.nonzero().tolist():
        prediction, action = predictions[row, step], batch.actions[row, step]
        if kind == "discrete":
            errors.append(-prediction.log_softmax(-1)[action - 3])
        else:
            low, high = torch.tensor([-2.0, -1.0]), torch.tensor([2.0, 3.0])
            code = 2 * (action - low) / (high - low) - 1
            errors.append((prediction - code).square().mean())
    wanted = torch.stack(errors).mean()
    torch.testing.assert_close(agent.loss(batch).double(), wanted, rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_padding_leaves_no_trace_in_the_loss(name: str, kind: str) -> None:
    agent = make_agent(name, SPACES[kind])
    batch = make_batch(agent)
    other = Batch(*(part.clone() for part in batch if part is not None))
    empty = ~other.mask
    other.observations[empty] = 7.0
    other.returns_to_go[empty] = -7.0
    other.timesteps[empty] = 9
    other.actions[empty] = 4 if kind == "discrete" else 1.5
    gradients = [
        torch.autograd.grad(agent.loss(each), list(agent.parameters()), allow_unused=True)
        for each in (batch, other)
    ]
    assert torch.equal(agent.loss(batch), agent.loss(other))
    for one, two in zip(*gradients, strict=True):
        assert one is not None
        assert two is not None
        torch.testing.assert_close(one, two, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_every_parameter_learns(name: str, kind: str) -> None:
    """All but Aaren's key bias, which adds the same to all scores: softmax cannot see it."""
    agent = make_agent(name, SPACES[kind], timestep_embedding="learned", max_episode_length=6)
    agent.loss(make_batch(agent)).backward()
    for parameter_name, parameter in agent.named_parameters():
        assert parameter.grad is not None
        largest = float(parameter.grad.abs().max())
        if parameter_name.endswith("key.bias"):
            assert largest < 1e-6, parameter_name
        else:
            assert largest > 1e-5, parameter_name


@pytest.mark.parametrize("name", ALL)
def test_observations_are_standardised_inside_the_agent(name: str) -> None:
    """The agent sees (x - mean) / std: in other units, with other statistics, it acts alike."""
    spec = AgentSpec(OBSERVATIONS, SPACES["continuous"], target_returns=(5.0,))
    config = AgentConfig(width=16, layers=1, context_length=4)
    mean, std = np.array([0.0, 1, 2, 3]), np.array([1.0, 2, 3, 4])
    agents = []
    for scale, shift in ((1.0, 0.0), (8.0, 16.0)):
        torch.manual_seed(0)
        agents.append(AGENTS[name].make(config, spec, mean * scale + shift, std * scale))
    first, second = (agent.policy(2) for agent in agents)
    seen = np.random.default_rng(0).normal(size=(2, 4))
    np.testing.assert_allclose(first.act(seen), second.act(seen * 8 + 16), rtol=0, atol=1e-5)


@pytest.mark.parametrize("name", SEQUENCE_AGENTS)
def test_returns_are_divided_by_their_scale(name: str) -> None:
    config = AgentConfig(width=16, layers=1, context_length=4)
    acts = []
    for scale, target in ((1000.0, 3600.0), (10.0, 36.0)):
        torch.manual_seed(0)
        spec = AgentSpec(OBSERVATIONS, SPACES["continuous"], returns_scale=scale)
        acts.append(AGENTS[name].make(config, spec).policy(1, target).act(np.ones((1, 4))))
    np.testing.assert_allclose(acts[0], acts[1], rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"width": 0}, "--width must be at least 1, got 0"),
        ({"layers": -1}, "--layers must be at least 1, got -1"),
        ({"context_length": 0}, "--context-length must be at least 1, got 0"),
        ({"heads": 3}, r"--heads \(3\) must divide --width \(16\)"),
        ({"dropout": 1.0}, r"--dropout must be in \[0, 1\), got 1.0"),
        ({"attention_dropout": -0.1}, r"--attention-dropout must be in \[0, 1\), got -0.1"),
        ({"dropout": float("nan")}, r"--dropout must be in \[0, 1\), got nan"),
        ({"width": 9, "heads": 3, "timestep_embedding": "sinusoidal"}, "--width must be even"),
        ({"max_episode_length": 0}, "--max-episode-length must be at least 1"),
    ],
)
def test_impossible_shapes_are_refused(settings: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_agent("decision-aaren", **settings)


@pytest.mark.parametrize("kind", sorted(SPACES))
def test_behavior_cloning_is_an_mlp_of_the_observation_alone(kind: str) -> None:
    agent = make_agent("behavior-cloning", SPACES[kind], layers=2, width=8)
    batch = make_batch(agent)
    mean, std = torch.linspace(-1, 1, 4), torch.linspace(0.5, 2, 4)

    def layer(x: Tensor, linear: nn.Module) -> Tensor:
        return x @ linear.weight.T + linear.bias

    linears = [module for module in agent.modules() if isinstance(module, nn.Linear)]
    assert [linear.out_features for linear in linears[:2]] == [8, 8]
    assert len(linears) == 3
    hidden = (batch.observations - mean) / std
    for linear in linears[:2]:
        hidden = layer(hidden, linear).clamp(min=0)
    wanted = layer(hidden, linears[2])
    if kind == "continuous":
        wanted = wanted.tanh()
    torch.testing.assert_close(agent.predict(batch), wanted, rtol=1e-5, atol=1e-6)
    other = batch._replace(returns_to_go=batch.returns_to_go + 3, timesteps=batch.timesteps + 1)
    assert torch.equal(agent.predict(batch), agent.predict(other))


def test_behavior_cloning_remembers_nothing() -> None:
    agent = make_agent("behavior-cloning")
    observations = np.random.default_rng(0).normal(size=(5, 2, 4))
    policy = agent.policy(2)
    first = [policy.act(each) for each in observations]
    again = [policy.act(each, np.ones(2), np.array([True, False])) for each in observations]
    assert np.array_equal(first, again)
    assert policy.state_bytes == 0


@pytest.mark.parametrize("name", ALL)
def test_gymnasium_shapes_an_action_for_each_environment(name: str) -> None:
    """One environment or many: the batch axis stays."""
    for envs in (1, 3):
        for space in (*BOXES.values(), SPACES["discrete"]):
            actions = make_agent(name, space).policy(envs).act(np.zeros((envs, 4)))
            assert actions.shape == (envs, *space.shape)
            assert all(space.contains(action) for action in actions)

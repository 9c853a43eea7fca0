"""The condition `max-return`: the agent predicts the return that it acts on."""

from __future__ import annotations

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
import torch
from agent_cases import CONTEXT, SEQUENCE_AGENTS, SPACES, assert_same_actions, make_agent, play

from aaren_rl.agents import (
    AGENTS,
    Agent,
    AgentConfig,
    AgentSpec,
    BehaviorCloning,
    DecisionAgent,
    Mode,
    load_agent,
)
from aaren_rl.agents.tokens import expectile_loss
from aaren_rl.data import Batch
from aaren_rl.errors import UserError
from aaren_rl.training import TrainConfig, train

LENGTHS = [[60], [13, 47], [1, 1, 2, 30, 26]]
agents = pytest.mark.parametrize("name", SEQUENCE_AGENTS)


def predicting(name: str, kind: str = "continuous", **config: object) -> DecisionAgent:
    agent = make_agent(name, SPACES[kind], condition="max-return", **config)
    assert isinstance(agent, DecisionAgent)
    return agent


def test_its_heads_forget_by_themselves() -> None:
    """The next return follows from the last ones, which a mean over the episode hides."""
    shape: dict[str, Any] = {"width": 16, "layers": 1, "context_length": 4}
    shape |= {"condition": "max-return", "env": "none", "updates": 1}
    for given, wanted in (({}, (0.25, 0.0625, 0.015625, 0.0)), ({"recency": (0.0,)}, (0.0,))):
        run = train("aaren-rl/hopper-small-v0", **{**shape, **given})
        assert run.agent.config.recency == wanted
        assert run.agent.config.heads == len(wanted)


@pytest.mark.parametrize("expectile", [0.3, 0.5, 0.9, 0.99])
def test_the_loss_has_its_minimum_at_the_expectile(expectile: float) -> None:
    """Of the uniform distribution on [0, 1]: t (1 - e)^2 = (1 - t) e^2."""
    samples = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    guess = torch.zeros((), dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.SGD([guess], lr=0.5)
    for _ in range(2000):
        optimizer.zero_grad()
        expectile_loss(guess.expand_as(samples), samples, expectile).mean().backward()
        optimizer.step()
    wanted = 1 / (1 + ((1 - expectile) / expectile) ** 0.5)
    assert float(guess.detach()) == pytest.approx(wanted, abs=1e-3)


@agents
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_the_agents_loss_is_that_of_actions_plus_that_of_returns(name: str, kind: str) -> None:
    agent = predicting(name, kind, expectile=0.9)
    batch = play(agent, "carry", [[12]]).batch(0, 0, 12)
    longer = Batch(*(torch.cat([part, part]) for part in batch[:5]))  # type: ignore[arg-type]
    longer.mask[1, 7:] = False  # padding does not count
    longer = longer._replace(returns_to_go=longer.returns_to_go + 3)
    with torch.no_grad():
        tokens = agent.embed(*(longer[i] for i in (2, 0, 1, 3)))
        features, _ = agent.read(tokens)
        errors = (longer.returns_to_go - agent.predict_return(features[:, ::3]))[..., 0] / 10
        weights = torch.where(errors > 0, 0.9, 0.1)
        of_returns = (weights * errors.square())[longer.mask].mean()
        of_actions = agent.actions.loss(agent.predict(longer), longer.actions, longer.mask)
        torch.testing.assert_close(agent.loss(longer), of_actions + of_returns)


def assert_same_returns(agent: DecisionAgent, batch: Batch, only: slice) -> None:
    """The returns-to-go of a batch are those that one parallel pass over it predicts."""
    with torch.no_grad():
        tokens = agent.embed(*(batch[i] for i in (2, 0, 1, 3)))
        predicted = agent.predict_return(agent.read(tokens)[0][:, ::3])
    np.testing.assert_allclose(
        batch.returns_to_go[0, only], predicted[0, only], rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize("kind", sorted(SPACES))
@pytest.mark.parametrize("name", [*SEQUENCE_AGENTS, "decision-lstm", "decision-min-gru"])
@pytest.mark.parametrize("mode", ["carry", "reset"])
def test_stepping_is_one_parallel_pass_over_the_returns_fed_back(
    name: str, mode: Mode, kind: str
) -> None:
    agent = predicting(name, kind)
    played = play(agent, mode, LENGTHS)
    assert played.returns_to_go.std() > 0.05  # they are not all the same
    for env in range(3):
        for start, stop in played.episodes(env):
            parts = [*range(start, stop, CONTEXT), stop] if mode == "reset" else [start, stop]
            for first, last in pairwise(parts):
                batch = played.batch(env, first, last)
                assert_same_actions(agent, batch, played.actions[first:last, env], slice(None))
                assert_same_returns(agent, batch, slice(None))


@agents
def test_random_restarts_over_a_thousand_steps(name: str) -> None:
    agent = predicting(name)
    rng = np.random.default_rng(3)
    cuts = [np.sort(rng.choice(np.arange(1, 1000), size=8, replace=False)) for _ in range(2)]
    played = play(agent, "carry", [[1000], *(np.diff([0, *cut, 1000]).tolist() for cut in cuts)])
    for env in range(3):
        for start, stop in played.episodes(env):
            batch = played.batch(env, start, stop)
            assert_same_actions(agent, batch, played.actions[start:stop, env], slice(None))
            assert_same_returns(agent, batch, slice(None))


@agents
@pytest.mark.parametrize("kind", sorted(SPACES))
def test_the_window_keeps_the_returns_that_were_fed_back(name: str, kind: str) -> None:
    agent = predicting(name, kind)
    played = play(agent, "window", LENGTHS)
    for env in range(3):
        for start, stop in played.episodes(env):
            for step in range(start, stop):
                batch = played.batch(env, max(start, step + 1 - CONTEXT), step + 1)
                newest = slice(-1, None)
                assert_same_actions(agent, batch, played.actions[step : step + 1, env], newest)
                assert_same_returns(agent, batch, newest)


@agents
@pytest.mark.parametrize("mode", ["carry", "window"])
def test_environments_do_not_see_each_other_and_rewards_do_not_matter(
    name: str, mode: Mode
) -> None:
    agent = predicting(name)
    together = play(agent, mode, LENGTHS)
    for env in range(3):
        policy = agent.policy(1, mode=mode)
        for step in range(60):
            starts = together.starts[step, env : env + 1]
            action = policy.act(together.observations[step, env : env + 1], np.zeros(1), starts)
            np.testing.assert_allclose(action[0], together.actions[step, env], rtol=0, atol=1e-5)


def test_aarens_state_has_the_size_that_it_has_with_targets() -> None:
    sizes = play(predicting("decision-aaren"), "carry", [[40]]).state_bytes
    assert set(sizes) == {play(make_agent("decision-aaren"), "carry", [[1]]).state_bytes[0]}


# ---- learning


STEPS, REACH = 4, 0.8


def good_and_bad() -> Batch:
    """Episodes from the same start: of five one always acts 0.8 and earns 1 a step, else -0.8."""
    episodes = 20
    good = torch.arange(episodes) % 5 == 0
    times = torch.arange(STEPS).expand(episodes, STEPS)
    signs = torch.where(good, 1.0, -1.0)[:, None, None]
    return Batch(
        observations=torch.ones(episodes, STEPS, 1),
        actions=REACH * signs.expand(episodes, STEPS, 1).clone(),
        returns_to_go=((STEPS - times) * good[:, None]).float()[..., None],
        timesteps=times,
        mask=torch.ones(episodes, STEPS, dtype=torch.bool),
    )


def trained(name: str, expectile: float) -> Agent:
    torch.manual_seed(0)
    box = gym.spaces.Box(-1, 1, (1,), np.float32)
    config = AgentConfig(width=32, layers=1, dropout=0, condition="max-return", expectile=expectile)
    agent = AGENTS[name].make(config, AgentSpec(box, box, returns_scale=float(STEPS)))
    optimizer = torch.optim.AdamW(agent.parameters(), lr=3e-3)
    batch = good_and_bad()
    for _ in range(300):
        optimizer.zero_grad()
        agent.loss(batch).backward()
        optimizer.step()
    return agent


def acts(agent: Agent) -> tuple[np.ndarray, np.ndarray]:
    """Actions and the returns that they were taken on, through one episode."""
    policy = agent.policy(1)
    actions, returns = [], []
    for _ in range(STEPS):
        actions.append(float(policy.act(np.ones((1, 1)), np.zeros(1))[0, 0]))
        returns.append(float(policy.returns_to_go[0]))  # type: ignore[attr-defined]
    return np.array(actions), np.array(returns)


@agents
def test_acts_like_the_good_episodes_not_like_the_most(name: str) -> None:
    agent = trained(name, 0.99)
    actions, returns = acts(agent)
    assert (actions > 0.5).all()
    assert returns[0] > 0.75 * STEPS
    # The mean return leads elsewhere, and so does a return that cannot be told from any other.
    actions, returns = acts(trained(name, 0.501))
    assert returns[0] < 0.5 * STEPS
    assert actions[0] < 0
    with torch.no_grad():
        agent.embed_return.weight.zero_()  # type: ignore[union-attr, operator]
    assert acts(agent)[0][0] < 0.5


# ---- saving, and what is refused


@agents
def test_saved_and_loaded(name: str, tmp_path: Path) -> None:
    agent = predicting(name, expectile=0.9)
    agent.save(tmp_path)
    loaded = load_agent(tmp_path)
    assert (loaded.config, loaded.asks_return) == (agent.config, False)
    one, other = play(agent, None, LENGTHS), play(loaded, None, LENGTHS)
    assert np.array_equal(one.actions, other.actions)
    assert np.array_equal(one.returns_to_go, other.returns_to_go)


@agents
def test_agents_from_before_are_asked_for_a_return(name: str, tmp_path: Path) -> None:
    agent = make_agent(name)
    agent.save(tmp_path)
    card = json.loads((tmp_path / "agent.json").read_text())
    del card["config"]["condition"], card["config"]["expectile"]
    (tmp_path / "agent.json").write_text(json.dumps(card))
    loaded = load_agent(tmp_path)
    assert (loaded.config.condition, loaded.asks_return) == ("target", True)
    assert np.array_equal(play(agent, None, LENGTHS).actions, play(loaded, None, LENGTHS).actions)


def test_what_is_refused() -> None:
    for expectile in (0.5, 1.0, float("nan")):
        with pytest.raises(
            UserError, match=rf"^--expectile must be in \(0.5, 1\), got {expectile}"
        ):
            AgentConfig(expectile=expectile).check()
    with pytest.raises(
        UserError, match=r"^--condition must be one of target, max-return, goal, got"
    ):
        AgentConfig(condition="best").check()  # type: ignore[arg-type]
    refused = "decision-aaren with --condition max-return cannot be asked for a return"
    config = TrainConfig(model=AgentConfig(condition="max-return"), target_return=(5.0,))
    with pytest.raises(UserError, match=f"^--target-return 5: {refused}"):
        config.check()
    for mode in ("carry", "window"):
        with pytest.raises(UserError, match=f"^--target-return 5: {refused}"):
            predicting("decision-aaren").policy(1, 5.0, mode)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="decision-transformer with --condition max-return"):
        predicting("decision-transformer").policy(1, 5.0, "sliding")


def test_which_agents_can_be_asked_for_a_return() -> None:
    for name in AGENTS:
        assert make_agent(name).asks_return == (AGENTS[name].make is not BehaviorCloning)
        assert not make_agent(name, condition="max-return").asks_return

"""Training learns: the loss falls, gradients are clipped, the rate follows its schedule."""

from __future__ import annotations

import dataclasses
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from run_cases import SAMPLERS, scalars, weights
from safetensors.torch import load

from aaren_rl.agents import Agent, load_agent
from aaren_rl.data import WindowSampler, load_trajectories
from aaren_rl.training import train
from aaren_rl.training.learner import learning_rate_factor

NAMES = ("decision-aaren", "decision-transformer", "behavior-cloning")


@torch.no_grad()
def held_out_loss(agent: Any, batches: int = 20) -> float:
    """On windows that training did not draw in this order, without dropout."""
    sampler = WindowSampler(
        load_trajectories("aaren-rl/hopper-small-v0"), batch_size=32, context_length=5, seed=99
    )
    return float(np.mean([float(agent.loss(sampler.sample())) for _ in range(batches)]))


@pytest.mark.parametrize("precision", ["32", "bf16"])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_falls(
    name: str, precision: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Guessing the mean action costs its variance; a few hundred updates halve that."""
    config = tiny(
        tmp_path,
        agent=name,
        precision=precision,
        updates=300,
        batch_size=32,
        learning_rate=5e-3,
        environment="none",
        log_every=1,
        model={"width": 32, "dropout": 0.0, "attention_dropout": 0.0},
    )
    train(config)
    actions = load_trajectories(config.dataset).actions
    losses = [value for _, value in scalars(tmp_path)["training/loss"]]
    assert len(losses) == 300
    agent = load_agent(tmp_path / "last")
    assert held_out_loss(agent) < 0.5 * actions.var(axis=0).mean()
    assert np.mean(losses[-50:]) < 0.5 * np.mean(losses[:5])
    assert {tensor.dtype for tensor in agent.state_dict().values()} == {torch.float32}


def test_bf16_computes_in_bf16(tiny: Callable[..., Any], tmp_path: Path) -> None:
    """Nearly the same run, and not the same."""
    losses = {}
    for precision in ("32", "bf16"):
        run = tmp_path / precision
        config = tiny(run, precision=precision, environment="none", log_every=1)
        train(config)
        losses[precision] = np.array([value for _, value in scalars(run)["training/loss"]])
    assert weights(tmp_path / "32") != weights(tmp_path / "bf16")
    np.testing.assert_allclose(losses["bf16"], losses["32"], rtol=0.02)
    assert (losses["bf16"] != losses["32"]).mean() > 0.9


@pytest.mark.parametrize("agent", ["decision-aaren", "behavior-cloning"])
def test_bf16_leaves_the_batch_and_its_embedding_in_float32(
    agent: str, tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In bfloat16, returns-to-go of 3600 and 3594 would be one number."""
    losses, exactly = Agent.loss, Agent.exactly
    batches, tokens = [], []

    def loss(self: Agent, batch: Any) -> Any:
        batches.append(batch)
        return losses(self, batch)

    def embedded(self: Agent, *given: Any) -> Any:
        tokens.append(exactly(self, *given))
        return tokens[-1]

    monkeypatch.setattr(Agent, "loss", loss)
    monkeypatch.setattr(Agent, "exactly", embedded)
    train(tiny(tmp_path, agent=agent, precision="bf16", environment="none", updates=2))
    assert len(batches) == 2
    assert tokens or agent == "decision-aaren"  # which embeds whole windows at once
    for name in ("observations", "actions", "returns_to_go"):
        for values in (getattr(batch, name) for batch in batches):
            assert values.dtype == torch.float32
            assert not torch.equal(values, values.bfloat16().float())
    assert {token.dtype for token in tokens} <= {torch.float32}


@pytest.mark.parametrize("sampling", sorted(SAMPLERS))
def test_the_logged_numbers_are_those_of_the_updates(
    sampling: str, tiny: Callable[..., Any], tmp_path: Path
) -> None:
    """Two updates made by hand: loss, gradient norm before clipping, rate, AdamW, weights."""
    config = tiny(
        tmp_path,
        updates=2,
        sampling=sampling,
        environment="none",
        log_every=1,
        warmup=0.5,
        gradient_clip=0.25,
        weight_decay=0.1,
        model={"dropout": 0.0, "timestep_embedding": "none"},
    )
    torch.manual_seed(config.seed)
    start = dataclasses.replace(config, out=tmp_path / "start", updates=1, learning_rate=1e-30)
    train(start)  # weights as they begin
    agent = load_agent(tmp_path / "start" / "last").train()
    data = load_trajectories(config.dataset)
    if sampling == "episodes":
        sampler = SAMPLERS[sampling](data, batch_steps=8 * 5, seed=0)
    else:
        sampler = SAMPLERS[sampling](data, batch_size=8, context_length=5, seed=0)
    matrices = re.compile(r"(sequence_model|head)\..*(weight)$")
    decays = {
        name: bool(matrices.match(name)) and "norm" not in name
        for name, _ in agent.named_parameters()
    }
    assert 0 < sum(decays.values()) < len(decays)
    optimizer = torch.optim.AdamW(
        [
            {"params": [parameter], "weight_decay": 0.1 if decays[name] else 0.0}
            for name, parameter in agent.named_parameters()
        ]
    )
    losses, norms, state = [], [], None
    for update in range(2):
        rate = 1e-3 * learning_rate_factor(update, 2, 0.5, "cosine")
        for group in optimizer.param_groups:
            group["lr"] = rate
        batch = sampler.sample()
        if sampling == "streams":
            predictions, state = agent.predict_from(batch, state)
            state = state.detach()
        else:
            predictions = agent.predict(batch)
        codes = (batch.actions - agent.actions.middle) / agent.actions.reach
        errors = (predictions - codes).square().mean(-1)
        loss = errors[batch.mask].mean()
        optimizer.zero_grad()
        loss.backward()
        norms.append(float(torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.25)))
        losses.append(float(loss.detach()))
        optimizer.step()
    train(config)
    logged = scalars(tmp_path)
    for tag, wanted in (("loss", losses), ("gradient_norm", norms), ("learning_rate", [1e-3] * 2)):
        entries = logged[f"training/{tag}"]
        assert [step for step, _ in entries] == [1, 2]
        np.testing.assert_allclose([value for _, value in entries], wanted, rtol=1e-5)
    assert max(norms) > 0.25
    trained = load(weights(tmp_path))
    for name, tensor in agent.state_dict().items():
        torch.testing.assert_close(trained[name], tensor, rtol=0, atol=2e-6, msg=name)


def sampled_from(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """The datasets that runs draw their batches from, as they are made."""
    seen: list[Any] = []

    def sampler(dataset: Any, **settings: Any) -> WindowSampler:
        seen.append(dataset)
        return WindowSampler(dataset, **settings)

    monkeypatch.setattr(sys.modules["aaren_rl.training.build"], "WindowSampler", sampler)
    return seen


def test_held_out_episodes_are_not_learned_from(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They are measured, and they are the same for every seed."""
    seen = sampled_from(monkeypatch)
    measured: list[Any] = []
    evaluator = sys.modules["aaren_rl.training.evaluator"]
    original = evaluator.offline_metrics

    def offline_metrics(agent: Any, held_out: Any) -> Any:
        measured.append(held_out)
        return original(agent, held_out)

    monkeypatch.setattr(evaluator, "offline_metrics", offline_metrics)
    for seed in (0, 1):
        settings = {"agent": "behavior-cloning", "held_out": 0.25, "environment": "none"}
        train(tiny(tmp_path / str(seed), seed=seed, updates=1, **settings))
    data = load_trajectories("aaren-rl/hopper-small-v0")
    for learned, held in zip(seen, measured, strict=True):
        assert (learned.num_episodes, held.num_episodes) == (59, 20)
        returns = [*learned.episode_returns, *held.episode_returns]
        assert sorted(returns) == sorted(data.episode_returns)  # all different: no overlap
    assert len(set(data.episode_returns)) == data.num_episodes
    assert np.array_equal(measured[0].observations, measured[1].observations)


def test_top_percent_learns_from_the_best_episodes_alone(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = sampled_from(monkeypatch)
    config = tiny(
        tmp_path, agent="behavior-cloning", top_percent=10.0, updates=1, environment="none"
    )
    train(config)
    data = load_trajectories(config.dataset)
    [chosen] = seen
    assert chosen.num_episodes == 8  # of 79
    assert sorted(chosen.episode_returns) == sorted(data.episode_returns)[-8:]
    mean, _ = chosen.observation_statistics()
    np.testing.assert_array_equal(load_agent(tmp_path / "last").observation_mean.numpy(), mean)


def test_a_loss_that_is_not_finite_stops_the_run(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = WindowSampler.sample

    def sample(self: WindowSampler) -> Any:
        batch = original(self)
        return batch._replace(returns_to_go=batch.returns_to_go * float("inf"))

    monkeypatch.setattr(WindowSampler, "sample", sample)
    with pytest.raises(ValueError, match="the loss became nan at update 5: lower --learning-rate"):
        train(tiny(tmp_path, environment="none"))

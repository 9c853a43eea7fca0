"""Heads with a distribution: against torch.distributions, and what is drawn from them."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from torch import Tensor
from torch.distributions import (
    Categorical,
    Independent,
    MixtureSameFamily,
    Normal,
    TransformedDistribution,
)
from torch.distributions.transforms import TanhTransform

from aaren_rl.errors import UserError
from aaren_rl.layers import make_head
from aaren_rl.layers.heads.gaussian import GaussianActions

BOX = spaces.Box(np.array([-2, -1], np.float32), np.array([2, 3], np.float32))
OPEN = spaces.Box(-np.inf, np.inf, (2,), np.float32)
DICT = spaces.Dict(go=BOX, press=spaces.Discrete(3, start=1), pull=OPEN)
CASES: list[tuple[str, spaces.Space[Any]]] = [
    ("tanh-gaussian", BOX),
    ("gaussian-mixture", BOX),
    ("gaussian-mixture", OPEN),
    ("categorical", spaces.Discrete(4, start=2)),
    ("discrete", spaces.Discrete(4)),
    ("", spaces.MultiDiscrete([3, 2])),
    ("tanh-gaussian", DICT),
]


def predictions_of(head: Any, *shape: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    return scale * torch.randn(*shape, head.outputs, generator=generator)


def distribution(head: GaussianActions, predictions: Tensor) -> Any:
    """The same in torch's words, in the network's units."""
    logits, means, log_stds = head.parts(predictions)
    mixture = MixtureSameFamily(
        Categorical(logits=logits), Independent(Normal(means, log_stds.exp()), 1)
    )
    return TransformedDistribution(mixture, TanhTransform()) if head.bounded else mixture


@pytest.mark.parametrize(("name", "space"), CASES[:3])
def test_log_probabilities_are_torchs(name: str, space: Any) -> None:
    head = make_head(space, name)
    assert isinstance(head, GaussianActions)
    given = predictions_of(head, 5, 4)
    actions = torch.tensor([-1.0, 2.5]) * torch.rand(5, 4, 2)
    wanted = head.encode(actions).double()
    expected = distribution(head, given.double()).log_prob(wanted)
    if expected.shape == (5, 4, 2):  # torch adds the slopes of the numbers' tanh one by one
        inner = wanted.atanh()
        slopes = (1 - wanted.square()).log().sum(-1)
        expected = distribution(head, given.double()).base_dist.log_prob(inner) - slopes
    torch.testing.assert_close(
        head.log_prob(given, actions).double(), expected, rtol=1e-4, atol=1e-4
    )


def test_actions_at_the_bounds_have_finite_likelihoods_and_gradients() -> None:
    head = make_head(BOX, "tanh-gaussian")
    given = predictions_of(head, 3, 2, scale=30.0).requires_grad_()
    corners = torch.tensor([[-2.0, 3.0], [2.0, -1.0]]).expand(3, 2, 2)
    loss = head.loss(given, corners, torch.ones(3, 2, dtype=torch.bool))
    loss.backward()
    assert math.isfinite(loss.item())
    assert given.grad is not None
    assert bool(given.grad.isfinite().all())
    assert bool((head.decide(given) <= head.high).all())


def test_the_mean_action_is_taken() -> None:
    head = make_head(BOX, "tanh-gaussian")
    given = torch.tensor([[0.0, 0.2, 1.5, -0.3, 0.8], [0.0, 3.0, -0.4, 0.9, 0.6]])
    drawn = head.sample(given.expand(100_000, 2, 5), 1.0, torch.Generator().manual_seed(0))
    torch.testing.assert_close(head.decide(given), drawn.mean(0), rtol=0, atol=0.08)
    mixture = make_head(BOX, "gaussian-mixture", {"components": 2})
    assert isinstance(mixture, GaussianActions)
    mixture.apart.zero_()
    both = torch.cat([torch.tensor([[-9.0, 9.0]]), torch.zeros(1, 2), given[:1, 1:3]], dim=-1)
    both = torch.cat([both, torch.zeros(1, 2), given[:1, 3:]], dim=-1)
    torch.testing.assert_close(mixture.decide(both), head.decide(given[:1]))


@pytest.mark.parametrize(("name", "space"), CASES)
def test_draws_are_seeded_and_inside_and_cold_ones_are_alike(name: str, space: Any) -> None:
    head = make_head(space, name)
    assert head.samples
    given = predictions_of(head, 64)

    def drawn(temperature: float, seed: int) -> Tensor:
        return head.sample(given, temperature, torch.Generator().manual_seed(seed))

    assert torch.equal(drawn(1.0, 7), drawn(1.0, 7))
    assert not torch.equal(drawn(1.0, 7), drawn(1.0, 8))
    torch.testing.assert_close(drawn(1e-30, 7), drawn(1e-30, 8))
    if name == "discrete":
        assert torch.equal(drawn(1e-30, 7), head.decide(given))
    many = head.to_numpy(drawn(1e6, 7))
    first = {k: v[0] for k, v in many.items()} if isinstance(many, dict) else many[0]
    assert space.contains(first), first


def test_draws_are_distributed_as_predicted() -> None:
    head = make_head(BOX, "gaussian-mixture", {"components": 2})
    assert isinstance(head, GaussianActions)
    given = predictions_of(head, 1).expand(20_000, -1)
    parts, generator = head.parts(given[:1]), torch.Generator().manual_seed(0)
    drawn = head.encode(head.sample(given, 1.0, generator))
    latent = drawn.clamp(-1 + 1e-6, 1 - 1e-6).atanh()
    weights = parts.logits.softmax(-1)[0]
    mean = (weights[:, None] * parts.means[0]).sum(0)
    second = (weights[:, None] * (parts.means[0].square() + (2 * parts.log_stds[0]).exp())).sum(0)
    torch.testing.assert_close(latent.mean(0), mean, rtol=0, atol=0.05)
    torch.testing.assert_close(latent.std(0), (second - mean.square()).sqrt(), rtol=0.05, atol=0)
    choice = make_head(spaces.Discrete(3))
    logits = torch.tensor([0.0, 1.0, -1.0])
    for temperature in (1.0, 3.0):
        counts = torch.bincount(choice.sample(logits.expand(20_000, 3), temperature, generator))
        expected = (logits / temperature).softmax(-1)
        torch.testing.assert_close(counts / 20_000, expected, rtol=0, atol=0.015)


def test_the_entropy_and_its_gradient() -> None:
    """Without bounds a Gaussian's entropy is known, and the estimate's mean is it."""
    head = make_head(OPEN, "tanh-gaussian")
    assert isinstance(head, GaussianActions)
    given = predictions_of(head, 1).requires_grad_()
    torch.manual_seed(0)
    estimate = head.entropy(given.expand(40_000, -1)).mean()
    exact = Normal(0.0, head.parts(given).log_stds.exp()).entropy().sum()
    torch.testing.assert_close(estimate, exact, rtol=0, atol=0.03)
    one, other = (torch.autograd.grad(each, given)[0] for each in (estimate, exact))
    torch.testing.assert_close(one, other, rtol=0, atol=0.05)
    choice = make_head(spaces.Discrete(4), "categorical")
    logits = predictions_of(choice, 6)
    expected = Categorical(logits=logits).entropy()
    torch.testing.assert_close(choice.entropy(logits), expected)  # type: ignore[operator]


@pytest.mark.parametrize(("name", "space"), [CASES[1], CASES[3]])
def test_the_multiplier_rises_while_the_entropy_is_too_low(name: str, space: Any) -> None:
    for target in (1.3, 0.0) if name == "categorical" else (50.0, -50.0):
        head = make_head(space, name, {"target_entropy": target, "entropy_weight": 0.2})
        given = predictions_of(head, 4, 3).requires_grad_()
        mask = torch.ones(4, 3, dtype=torch.bool)
        actions = head.sample(given.detach(), 1.0, torch.Generator().manual_seed(0))
        torch.manual_seed(0)
        loss = head.train().loss(given, actions, mask)
        loss.backward()
        weight: Tensor = head.constraint.log_weight  # type: ignore[union-attr, assignment]
        assert weight.grad is not None
        assert float(weight.grad) * (1 if target <= 0 else -1) > 0  # a step goes the other way
        torch.manual_seed(0)
        entropy = head.entropy(given).mean()  # type: ignore[operator]
        plain = head.eval().loss(given, actions, mask)
        torch.testing.assert_close(loss, plain - 0.2 * entropy)
        expected = {"entropy": float(entropy.detach()), "entropy_weight": 0.2}
        assert head.logged() == pytest.approx(expected)


@pytest.mark.parametrize(
    ("name", "space", "options", "message"),
    [
        ("tanh-gaussian", spaces.Discrete(3), {}, "predicts numbers, which"),
        ("tanh-gaussian", spaces.MultiBinary(3), {}, "predicts numbers, which"),
        ("categorical", DICT, {}, "predicts one choice, which"),
        ("tanh-gaussian", BOX, {"components": 2}, "unknown option 'components'"),
        ("gaussian-mixture", BOX, {"components": 0}, "components must be at least 1"),
        ("tanh-gaussian", BOX, {"log_std_min": 3.0}, "must be below log-std-max"),
        ("tanh-gaussian", BOX, {"margin": 0.0}, "margin must be in"),
        ("tanh-gaussian", BOX, {"entropy_weight": -1.0}, "entropy-weight must be finite"),
        ("categorical", spaces.Discrete(3), {"target_entropy": 2.0}, "must be in"),
        ("no-head", BOX, {}, "unknown action head 'no-head'"),
    ],
)
def test_bad_heads_are_refused(name: str, space: Any, options: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_head(space, name, options)

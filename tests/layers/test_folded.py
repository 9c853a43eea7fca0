"""An Aaren layer multiplied out is the same layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import linear

from aaren_rl.layers import AarenAttention
from aaren_rl.layers.folded import (
    ABSENT,
    NO_MAXIMUM,
    NOTHING,
    FoldedAttention,
    attend,
    attend_bounded,
    causal,
    fold_attention,
)
from aaren_rl.ops import PrefixState

WIDTH = 16


def random_layer(heads: int, scale: float = 0.4) -> tuple[nn.LayerNorm, AarenAttention]:
    torch.manual_seed(heads)
    norm, layer = nn.LayerNorm(WIDTH), AarenAttention(WIDTH, heads)
    for parameter in (*layer.parameters(), *norm.parameters()):
        torch.nn.init.normal_(parameter, std=scale)
    return norm, layer


def rows_of(folded: FoldedAttention, x: Tensor) -> Tensor:
    weight, bias = (torch.from_numpy(each.astype(np.float32)) for each in folded.project)
    return (x @ weight + bias).view(*x.shape[:2], folded.heads, -1).transpose(1, 2)


def out(folded: FoldedAttention, outputs: Tensor) -> Tensor:
    flat = outputs.transpose(1, 2).flatten(2)
    if folded.out is None:
        return flat
    weight, bias = (torch.from_numpy(each.astype(np.float32)) for each in folded.out)
    return flat @ weight + bias


class Stepper:
    """A folded layer and its state, in one of the two forms."""

    def __init__(self, folded: FoldedAttention, batch: int, bounded: bool) -> None:
        self.folded, self.bounded = folded, bounded
        self.sums = torch.full((batch, folded.heads, folded.dim + 1), NOTHING)
        self.maximum = torch.full((batch, folded.heads, 1), ABSENT)

    def __call__(self, x: Tensor, absent: Tensor | None = None, last: bool = False) -> Tensor:
        rows = rows_of(self.folded, x)
        if self.bounded:
            outputs, self.sums = attend_bounded(
                rows, self.sums, absent, None if last else torch.ones(2 * rows.shape[-2:-1]).tril()
            )
        else:
            mask = torch.from_numpy(causal(x.shape[1]))
            outputs, self.sums, self.maximum = attend(
                rows, self.sums, self.maximum, absent, mask, last
            )
        return out(self.folded, outputs)


FORMS = [(True, 0.1), (True, 0.6), (False, 0.1), (False, 0.6), (False, 3.0)]


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize(("bounded", "scale"), FORMS)
@pytest.mark.parametrize("tokens", [1, 3, 4])
def test_carrying_a_state_is_the_layer(
    heads: int, bounded: bool, scale: float, tokens: int
) -> None:
    norm, layer = random_layer(heads, scale)
    folded = fold_attention(layer, norm)
    assert (folded.bound < NO_MAXIMUM) == (scale < 3)
    x = norm(torch.randn(2, 50 * tokens, WIDTH))
    wanted, _ = layer(x)
    step = Stepper(folded, 2, bounded)
    parts = [step(part) for part in x.split(tokens, dim=1)]
    size = wanted.abs().max().item()
    torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=0, atol=3e-5 * max(1, size))
    assert (folded.out is None) == (heads == 1)


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 4])
def test_no_score_is_beyond_the_bound_and_some_reach_it(heads: int) -> None:
    norm, layer = random_layer(heads, 0.6)
    folded = fold_attention(layer, norm)
    x = torch.randn(1, 20_000, WIDTH) * torch.rand(1, 20_000, 1) * 100
    scores = rows_of(folded, norm(x))[..., -1]
    assert scores.abs().max() <= folded.bound
    # the worst token: along what the scores weigh
    weight = linear(layer.query_token, layer.query.weight, layer.query.bias)
    keys = layer.key.weight.view(heads, -1, WIDTH)
    along = torch.einsum("hdw,hd->hw", keys, weight.view(heads, -1)) * norm.weight
    worst = rows_of(folded, norm(1e4 * (along - along.mean(-1, keepdim=True))[None]))[..., -1]
    assert worst.abs().max() == pytest.approx(folded.bound, rel=1e-4)
    # without the constant that softmax does not see
    constant = layer.scores(norm(x)).transpose(1, 2) - scores
    assert constant.std(-1).max() < 1e-4


@torch.no_grad()
@pytest.mark.parametrize("bounded", [True, False])
def test_the_state_is_that_of_the_prefix(bounded: bool) -> None:
    norm, layer = random_layer(2)
    folded = fold_attention(layer, norm)
    x = norm(torch.randn(3, 3, WIDTH))
    _, wanted = layer(x)
    step, newest = (Stepper(folded, 3, bounded) for _ in range(2))
    whole, last = step(x), newest(x, last=True)
    ours = PrefixState(step.maximum[..., 0], step.sums[..., -1], step.sums[..., :-1])
    torch.testing.assert_close(ours.output(), wanted.output(), rtol=0, atol=1e-5)
    torch.testing.assert_close(last, whole[:, -1:], rtol=0, atol=1e-6)
    torch.testing.assert_close(newest.sums, step.sums, rtol=0, atol=1e-6)
    torch.testing.assert_close(newest.maximum, step.maximum, rtol=0, atol=1e-6)


@torch.no_grad()
@pytest.mark.parametrize("bounded", [True, False])
def test_an_absent_first_token_leaves_no_trace(bounded: bool) -> None:
    norm, layer = random_layer(1, 0.6)
    folded = fold_attention(layer, norm)
    x = norm(torch.randn(2, 3, WIDTH))
    absent = torch.tensor([ABSENT, 0.0, 0.0]).view(1, 1, 3, 1)
    step, without = (Stepper(folded, 2, bounded) for _ in range(2))
    outputs, wanted = step(x, absent), without(x[:, 1:])
    assert torch.isfinite(outputs).all()  # its own output too, which nobody reads
    torch.testing.assert_close(outputs[:, 1:], wanted, rtol=1e-6, atol=1e-6)
    torch.testing.assert_close(step.sums, without.sums, rtol=1e-6, atol=1e-6)


@torch.no_grad()
def test_the_bounded_form_holds_at_its_bound() -> None:
    """Scores at one end of the range for a long time, then at the other."""
    values = torch.linspace(-1, 1, 1000).view(1, 1, 1000, 1)
    ones = torch.ones_like(values)
    low, high = torch.full_like(values, -NO_MAXIMUM), torch.full_like(values, NO_MAXIMUM)
    sums = torch.full((1, 1, 2), NOTHING)
    outputs, sums = attend_bounded(
        torch.cat([values, ones, low], -1), sums, None, torch.ones(1000, 1000).tril()
    )
    averages = values.cumsum(2) / torch.arange(1, 1001).view(1, 1, -1, 1)
    torch.testing.assert_close(outputs, averages, rtol=0, atol=1e-5)
    for _ in range(100):
        outputs, sums = attend_bounded(torch.cat([values, ones, high], -1), sums, None, None)
    assert torch.isfinite(sums).all()
    torch.testing.assert_close(outputs[0, 0, 0, 0], torch.tensor(0.0), rtol=0, atol=1e-5)

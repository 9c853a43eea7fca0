"""Heads that forget: the linear bias in one call, in chunks, packed, masked."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aaren_rl.layers import AarenAttention
from aaren_rl.ops import PrefixState

RATES = (1.5, 0.2, 0.0, 0.01)


def make_layer(rates: tuple[float, ...] = RATES, width: int = 16) -> AarenAttention:
    """A layer in float64 whose every weight matters."""
    torch.manual_seed(len(rates))
    layer = AarenAttention(width, max(1, len(rates)), recency=rates).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def definition(layer: AarenAttention, x: Tensor, rates: tuple[float, ...]) -> Tensor:
    """Softmax over each prefix of scores + rate * (i - k), one prefix after the other."""
    heads = layer.heads
    scores, values = layer.scores(x), layer.value(x).unflatten(-1, (heads, -1))
    outputs = []
    for k in range(x.shape[1]):
        age = torch.arange(k, -1, -1, dtype=x.dtype)[:, None] * torch.tensor(rates)
        weights = (scores[:, : k + 1] - age).softmax(1)
        outputs.append(torch.einsum("bth,bthd->bhd", weights, values[:, : k + 1]).flatten(1))
    return layer.out(torch.stack(outputs, 1))


@pytest.mark.parametrize("rates", [RATES, (0.7,), (0.0, 0.3)])
def test_the_definition_with_all_gradients(rates: tuple[float, ...]) -> None:
    """ALiBi: what is k tokens old has lost k times the rate."""
    layer = make_layer(rates)
    x = torch.randn(2, 13, 16, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    asked = [x, *layer.parameters()]
    got, want = layer(x)[0], definition(layer, x, rates)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    gradients = (torch.autograd.grad((y * upstream).sum(), asked) for y in (got, want))
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("cuts", [(1,), (3, 3, 4), (5, 10)])
def test_any_split_gives_the_same_outputs_and_state(cuts: tuple[int, ...]) -> None:
    """The state's age is in its maximum."""
    layer, x = make_layer(), torch.randn(2, 20, 16, dtype=torch.float64)
    whole, end = layer(x)
    pieces, state = [], None
    for piece in x.split([*cuts, 20 - sum(cuts)], dim=1):
        y, state = layer(piece, state)
        pieces.append(y)
    torch.testing.assert_close(torch.cat(pieces, 1), whole, rtol=0, atol=1e-12)
    assert isinstance(state, PrefixState)
    torch.testing.assert_close(state.log_normalizer(), end.log_normalizer(), rtol=0, atol=1e-11)
    torch.testing.assert_close(state.output(), end.output(), rtol=0, atol=1e-12)


def test_packed_sequences_are_as_alone() -> None:
    """Outputs, and the state of each, whatever came before it in the row."""
    layer, lengths = make_layer(), [4, 1, 9]
    x = torch.randn(1, sum(lengths), 16, dtype=torch.float64)
    offsets = torch.tensor([0, *lengths]).cumsum(0)
    packed, states = layer(x, cu_seqlens=offsets)
    for row, piece in enumerate(x.split(lengths, dim=1)):
        alone, state = layer(piece)
        start = int(offsets[row])
        torch.testing.assert_close(
            packed[:, start : start + lengths[row]], alone, rtol=0, atol=1e-12
        )
        torch.testing.assert_close(
            states[row].log_normalizer(), state.log_normalizer(), rtol=0, atol=1e-11
        )


def test_a_masked_token_leaves_no_trace_and_takes_no_time() -> None:
    """In front, between and behind."""
    layer, x = make_layer(), torch.randn(1, 9, 16, dtype=torch.float64)
    mask = torch.tensor([[False, True, True, False, False, True, True, True, False]])
    outputs, state = layer(x, None, mask)
    kept, kept_state = layer(x[mask][None])
    torch.testing.assert_close(outputs[mask][None], kept, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        state.log_normalizer(), kept_state.log_normalizer(), rtol=0, atol=1e-11
    )


def test_no_rate_changes_nothing() -> None:
    """All zero is the paper's layer."""
    layer, plain = make_layer((0.0, 0.0)), make_layer((0.0, 0.0))
    plain.recency = None
    x = torch.randn(2, 7, 16, dtype=torch.float64)
    assert layer.recency is None
    assert torch.equal(layer(x)[0], plain(x)[0])


def test_an_endless_stream_stays_exact() -> None:
    """After a million tokens in float32 a head forgets as it did at the start."""
    layer = make_layer((0.5,)).float()
    x = torch.randn(1, 30, 16)
    fresh = layer(x)[0]
    old = PrefixState(torch.zeros(1, 1), torch.ones(1, 1), torch.zeros(1, 1, 16))
    for _ in range(10):
        _, old = layer(torch.randn(1, 100_000, 16), old)
    assert abs(float(old.maximum)) < 50
    # 30 tokens later what came before has lost a factor of exp(15)
    torch.testing.assert_close(layer(x, old)[0][:, -1], fresh[:, -1], rtol=0, atol=1e-3)


@pytest.mark.parametrize("rates", [(1.0,), (1.0, -0.1), (1.0, math.nan)])
def test_refuses_what_cannot_be(rates: tuple[float, ...]) -> None:
    """One rate a head, none negative."""
    with pytest.raises(ValueError, match="recency: one rate >= 0 for each of 2 heads"):
        AarenAttention(16, 2, recency=rates)

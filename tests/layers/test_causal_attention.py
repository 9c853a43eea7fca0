"""The Transformer's mixer against a softmax written out, and its cache."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aaren_rl.layers import CausalSelfAttention, KeyValueCache


def random_layer(heads: int, width: int = 16) -> CausalSelfAttention:
    torch.manual_seed(heads)
    layer = CausalSelfAttention(width, heads).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def written_out(layer: CausalSelfAttention, x: Tensor) -> Tensor:
    """softmax(Q K^T / sqrt(dim) + mask) V, the projections split as GPT-2 does."""
    time, dim = x.shape[1], layer.width // layer.heads
    queries, keys, values = (
        part.unflatten(-1, (layer.heads, dim)).transpose(1, 2)
        for part in layer.query_key_value(x).split(layer.width, dim=-1)
    )
    scores = queries @ keys.transpose(2, 3) / math.sqrt(dim)
    row, column = torch.arange(time)[:, None], torch.arange(time)
    weights = scores.masked_fill(column > row, -math.inf).softmax(-1)
    return layer.out((weights @ values).transpose(1, 2).flatten(2))


@pytest.mark.parametrize("heads", [1, 4])
def test_is_softmax_attention_over_the_past(heads: int) -> None:
    layer = random_layer(heads)
    x = torch.randn(2, 12, 16, dtype=torch.float64)
    wanted = written_out(layer, x)
    outputs, cache = layer(x)
    torch.testing.assert_close(outputs, wanted, rtol=0, atol=1e-12)
    assert cache.keys.shape[2] == 12
    for sizes in ([1] * 12, [5, 1, 6], [3, 9], [11, 1]):
        state, parts = None, []
        for part in x.split(sizes, dim=1):
            out, state = layer(part, state)
            parts.append(out)
        torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=0, atol=1e-12)


def test_cache_drops_what_no_sequence_needs_after_resets() -> None:
    """Row 0 restarts before step 10, row 1 before 20: then steps 0 to 9 are nobody's."""
    layer = random_layer(2).eval()
    x = torch.randn(2, 30, 16, dtype=torch.float64)
    state, lengths = None, []
    for step in range(30):
        if step in (10, 20):
            state = state.reset(torch.tensor([step == 10, step == 20]))
        out, state = layer(x[:, step : step + 1], state)
        lengths.append(state.keys.shape[2])
    assert lengths == [*range(1, 21), *range(11, 21)]
    for row, start in ((0, 10), (1, 20)):
        alone = written_out(layer, x[row : row + 1, start:])
        torch.testing.assert_close(out[row], alone[0, -1:], rtol=0, atol=1e-12)
    empty = state.reset(torch.tensor([True, True]))
    assert empty.keys.shape[2] == empty.nbytes == 0
    out, state = layer(x[:, :3], empty)
    torch.testing.assert_close(out, written_out(layer, x[:, :3]), rtol=0, atol=1e-12)


def test_cache_is_a_value() -> None:
    """Going on twice from one cache gives the same twice: nothing is written into it."""
    layer = random_layer(2)
    x = torch.randn(2, 4, 16, dtype=torch.float64)
    _, cache = layer(x)
    keys = cache.keys.clone()
    mask = torch.tensor([[True, False], [True, True]])
    first, _ = layer(x[:, :2], cache, mask)
    cache.reset(torch.tensor([True, False]))
    cache.last(1)
    second, _ = layer(x[:, :2], cache, mask)
    assert torch.equal(first, second)
    assert torch.equal(cache.keys, keys)


def test_cache_indexes_and_detaches() -> None:
    layer = random_layer(2)
    x = torch.randn(3, 4, 16, dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True] * 4, [False] + [True] * 3, [True] * 4])
    _, cache = layer(x, None, mask)
    assert cache.keys.requires_grad
    assert not cache.detach().keys.requires_grad
    assert not cache.detach().values.requires_grad
    chosen = cache[torch.tensor([2, 1])]
    assert isinstance(chosen, KeyValueCache)
    assert chosen.valid is not None
    assert chosen.valid.tolist() == [[True] * 4, [False, True, True, True]]
    assert torch.equal(chosen.keys, cache.keys[[2, 1]])
    assert cache.nbytes == 2 * 3 * 4 * 16 * 8 + 3 * 4


def test_attention_weights_are_dropped_in_training_only() -> None:
    torch.manual_seed(0)
    layer = CausalSelfAttention(16, 2, attention_dropout=0.5)
    x = torch.randn(1, 8, 16)
    training = layer(x)[0]
    assert not torch.equal(training, layer(x)[0])
    layer.eval()
    assert torch.equal(layer(x)[0], layer(x)[0])
    torch.testing.assert_close(
        layer(x)[0].double(), written_out(layer.double(), x.double()), rtol=0, atol=1e-6
    )


def test_refuses_what_cannot_be() -> None:
    for heads in (3, 0, -2):
        with pytest.raises(ValueError, match=rf"heads \({heads}\) must divide width \(8\)"):
            CausalSelfAttention(8, heads)
    with pytest.raises(ValueError, match=r"bool \[1, 2\] .* got torch.bool \[1, 3\]"):
        CausalSelfAttention(8)(torch.zeros(1, 2, 8), None, torch.ones(1, 3, dtype=torch.bool))


@pytest.mark.parametrize("time", [1, 2, 60, 300])
def test_written_out_in_bfloat16_is_the_same_attention(time: int) -> None:
    """Short bfloat16 sequences take another path (three operations); outputs and gradients."""
    torch.manual_seed(0)
    layer = CausalSelfAttention(32, 2)
    x = torch.randn(3, time, 32, requires_grad=True)
    upstream = torch.randn(3, time, 32)
    exact = layer(x)[0]
    wanted = torch.autograd.grad((exact * upstream).sum(), [x, *layer.parameters()])
    with torch.autocast("cpu", torch.bfloat16):
        short = layer(x)[0]
    got = torch.autograd.grad((short.float() * upstream).sum(), [x, *layer.parameters()])
    for one, other in zip([short.float(), *got], [exact, *wanted], strict=True):
        one, other = one.detach(), other.detach()
        error = float((one - other).norm() / (other.norm() + 1e-6))
        assert error < 2e-2 or float(other.norm()) < 1e-4


def test_written_out_drops_weights_in_training_alone() -> None:
    torch.manual_seed(0)
    layer = CausalSelfAttention(32, 1, attention_dropout=0.5)
    x = torch.randn(2, 20, 32)
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        assert not layer(x)[0].equal(layer(x)[0])
        layer.eval()
        assert layer(x)[0].equal(layer(x)[0])

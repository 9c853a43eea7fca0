"""The key-value cache is a value, though new tokens are written into a shared buffer."""

from __future__ import annotations

import torch

from aaren_rl.layers import CausalSelfAttention


@torch.no_grad()
def test_the_buffer_is_doubled_not_grown_token_by_token() -> None:
    layer = CausalSelfAttention(16, 2).eval()
    x = torch.randn(1, 1, 16)
    _, cache = layer(x)
    places = set()
    for _ in range(2000):
        _, cache = layer(x, cache)
        places.add(cache.keys.data_ptr())
    assert cache.keys.shape[2] == 2001
    assert len(places) <= 7  # 64, 128, .. 4096: every other step finds its place


@torch.no_grad()
def test_two_futures_of_one_cache_do_not_meet() -> None:
    layer = CausalSelfAttention(16, 2).eval()
    past, one, other = torch.randn(3, 2, 5, 16)
    _, cache = layer(past)
    _, cache = layer(past[:, :1], cache)
    kept = cache.keys.clone()
    _, first = layer(one, cache)
    before = first.keys.clone()
    _, second = layer(other, cache)
    _, third = layer(other, first)
    assert torch.equal(cache.keys, kept)
    assert torch.equal(first.keys, before)
    assert torch.equal(second.keys[:, :, :6], kept)
    assert torch.equal(third.keys[:, :, :11], before)
    assert not torch.equal(second.keys[:, :, 6:11], first.keys[:, :, 6:11])


def test_gradients_flow_through_a_carried_cache() -> None:
    layer = CausalSelfAttention(16, 2)
    x = torch.randn(1, 6, 16, requires_grad=True)
    _, cache = layer(x[:, :4])
    outputs, _ = layer(x[:, 4:], cache)
    (carried,) = torch.autograd.grad(outputs.sum(), x)
    (whole,) = torch.autograd.grad(layer(x)[0][:, 4:].sum(), x)
    torch.testing.assert_close(carried, whole, rtol=0, atol=1e-6)


def test_a_cache_from_inference_mode_goes_on_outside_of_it() -> None:
    layer = CausalSelfAttention(16, 2).eval()
    x = torch.randn(1, 9, 16)
    with torch.inference_mode():
        _, cache = layer(x[:, :4])
        _, cache = layer(x[:, 4:6], cache)
    with torch.no_grad():
        outputs, _ = layer(x[:, 6:], cache)
        torch.testing.assert_close(outputs, layer(x)[0][:, 6:], rtol=0, atol=1e-6)

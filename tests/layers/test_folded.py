"""An Aaren layer multiplied out is the same layer."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from aaren_rl.layers import AarenAttention
from aaren_rl.layers.folded import ABSENT, attend, fold_attention, visibility
from aaren_rl.ops import PrefixState


def random_layer(heads: int, scale: float = 0.4) -> AarenAttention:
    torch.manual_seed(heads)
    layer = AarenAttention(16, heads)
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=scale)
    return layer


@torch.no_grad()
@pytest.mark.parametrize("heads", [1, 2, 4])
@pytest.mark.parametrize("scale", [0.1, 0.4, 2.0])  # scores up to about 0.1, 10 and 5,000
@pytest.mark.parametrize("tokens", [1, 3, 4])
def test_carrying_a_state_is_the_layer(heads: int, scale: float, tokens: int) -> None:
    layer = random_layer(heads, scale)
    folded = fold_attention(layer)
    weight, bias = (torch.from_numpy(each.astype(np.float32)) for each in folded.project)
    x = torch.randn(2, 5 * tokens, 16)
    wanted, _ = layer(x)
    mask = torch.from_numpy(visibility(tokens))[None, None]
    begin = torch.from_numpy(visibility(tokens))[None, None].clone()
    begin[..., 0] = ABSENT  # no state yet, but the first token is there
    state = torch.zeros(2, heads, 1, 16 // heads + 2)
    parts = []
    for step, part in enumerate(x.split(tokens, dim=1)):
        rows = (part @ weight + bias).view(2, tokens, heads, -1).transpose(1, 2)
        outputs, state = attend(rows, state, mask if step else begin, last_only=False)
        flat = outputs.transpose(1, 2).flatten(2)
        if folded.out is not None:
            out_weight, out_bias = (torch.from_numpy(e.astype(np.float32)) for e in folded.out)
            flat = flat @ out_weight + out_bias
        parts.append(flat)
    size = wanted.abs().max().item()
    torch.testing.assert_close(torch.cat(parts, 1), wanted, rtol=0, atol=3e-5 * max(1, size))
    assert (folded.out is None) == (heads == 1)


@torch.no_grad()
def test_the_state_is_that_of_the_prefix() -> None:
    layer = random_layer(2)
    folded = fold_attention(layer)
    weight, bias = (torch.from_numpy(each.astype(np.float32)) for each in folded.project)
    x = torch.randn(3, 3, 16)
    _, wanted = layer(x)
    rows = (x @ weight + bias).view(3, 3, 2, -1).transpose(1, 2)
    begin = torch.from_numpy(visibility(3))[None, None].clone()
    begin[..., 0] = ABSENT
    whole, state = attend(rows, torch.zeros(3, 2, 1, 10), begin, last_only=False)
    last, same = attend(rows, torch.zeros(3, 2, 1, 10), begin, last_only=True)
    ours = PrefixState(state[:, :, 0, -1], state[:, :, 0, -2], state[:, :, 0, :-2])
    torch.testing.assert_close(ours.output(), wanted.output(), rtol=0, atol=1e-5)
    torch.testing.assert_close(ours.log_normalizer(), wanted.log_normalizer(), rtol=0, atol=1e-5)
    torch.testing.assert_close(last, whole[:, :, -1:], rtol=0, atol=1e-6)
    torch.testing.assert_close(same, state, rtol=0, atol=1e-6)


@torch.no_grad()
def test_starting_afresh_forgets_the_state_and_the_first_token() -> None:
    rows, old = torch.randn(2, 1, 3, 6), torch.randn(2, 1, 1, 6)
    afresh = torch.from_numpy(visibility(3, first_may_miss=True))[None, None]
    outputs, state = attend(rows, old, afresh, last_only=False)
    rows[:, :, 0] = torch.randn(6)
    again, after = attend(rows, 100 * old, afresh, last_only=False)
    assert torch.equal(outputs[:, :, 1:], again[:, :, 1:])
    assert torch.equal(state, after)
    assert torch.isfinite(again).all()
    _, two = attend(
        rows[:, :, 1:], old, torch.tensor([[ABSENT, 0, ABSENT], [ABSENT, 0, 0]]), last_only=False
    )
    torch.testing.assert_close(state, two, rtol=0, atol=1e-6)

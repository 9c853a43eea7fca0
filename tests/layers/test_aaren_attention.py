"""Aaren's layer against its definition, written out with keys and a softmax over each prefix."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from aaren_rl.layers import AarenAttention, Block, CausalSelfAttention


def count(module: torch.nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def random_layer(width: int, heads: int) -> AarenAttention:
    """In float64, with no parameter at zero."""
    torch.manual_seed(width + heads)
    layer = AarenAttention(width, heads).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return layer


def heads_of(layer: AarenAttention, x: Tensor) -> Tensor:
    """`[..., width]` to `[..., heads, dim]`."""
    return x.unflatten(-1, (layer.heads, layer.width // layer.heads))


def unfolded_scores(layer: AarenAttention, x: Tensor) -> Tensor:
    """(W_k x + b_k) . (W_q token + b_q) / sqrt(dim), a head at a time."""
    keys, query = heads_of(layer, layer.key(x)), heads_of(layer, layer.query(layer.query_token))
    return torch.stack(
        [keys[..., h, :] @ query[h] / math.sqrt(keys.shape[-1]) for h in range(layer.heads)], dim=-1
    )


def unfolded_outputs(layer: AarenAttention, x: Tensor) -> Tensor:
    """Softmax over each prefix, one prefix after the other."""
    scores, values = unfolded_scores(layer, x), heads_of(layer, layer.value(x))
    mixed = [
        torch.einsum("bth,bthd->bhd", scores[:, : k + 1].softmax(1), values[:, : k + 1])
        for k in range(x.shape[1])
    ]
    return layer.out(torch.stack(mixed, dim=1).flatten(2))


@pytest.mark.parametrize(("width", "heads"), [(8, 1), (8, 2), (8, 8), (48, 3), (128, 4), (512, 8)])
def test_one_token_more_than_a_transformers_attention(width: int, heads: int) -> None:
    transformer = count(CausalSelfAttention(width, heads))
    assert transformer == 4 * width**2 + 4 * width
    assert count(AarenAttention(width, heads)) == transformer + width


def test_blocks_have_the_papers_parameter_counts() -> None:
    """Feng et al. 2024: 3,152,384 for the Transformer, 3,152,896 for Aaren."""
    assert count(Block(CausalSelfAttention(512, 8), 512)) == 3_152_384
    assert count(Block(AarenAttention(512, 8), 512)) == 3_152_896


@pytest.mark.parametrize(("width", "heads"), [(12, 1), (12, 3), (32, 4)])
def test_folded_scores_are_the_definitions(width: int, heads: int) -> None:
    layer = random_layer(width, heads)
    x = torch.randn(2, 5, width, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(2, 5, heads, dtype=torch.float64)
    folded, unfolded = layer.scores(x), unfolded_scores(layer, x)
    torch.testing.assert_close(
        folded, unfolded, rtol=0, atol=1e-12 * float(unfolded.detach().abs().max())
    )
    asked = [
        x,
        layer.query_token,
        layer.query.weight,
        layer.query.bias,
        layer.key.weight,
        layer.key.bias,
    ]
    got = torch.autograd.grad((folded * upstream).sum(), asked)
    want = torch.autograd.grad((unfolded * upstream).sum(), asked)
    for one, other in zip(got, want, strict=True):
        assert other.abs().max() > 0.01
        torch.testing.assert_close(one, other, rtol=1e-10, atol=1e-11)


@pytest.mark.parametrize("heads", [1, 4])
def test_layer_is_the_definition_with_all_gradients(heads: int) -> None:
    layer = random_layer(16, heads)
    x = torch.randn(3, 11, 16, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn_like(x)
    asked = {"x": x, **dict(layer.named_parameters())}
    got, _ = layer(x)
    want = unfolded_outputs(layer, x)
    torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)
    got_gradients = torch.autograd.grad((got * upstream).sum(), list(asked.values()))
    want_gradients = torch.autograd.grad((want * upstream).sum(), list(asked.values()))
    for name, one, other in zip(asked, got_gradients, want_gradients, strict=True):
        torch.testing.assert_close(
            one, other, rtol=1e-9, atol=1e-10, msg=lambda m, n=name: f"{n}: {m}"
        )


def test_the_key_bias_moves_the_state_but_no_output() -> None:
    """It adds the same to all scores of a head; the state's log-normaliser moves by just that."""
    layer = random_layer(16, 2)
    x = torch.randn(1, 6, 16, dtype=torch.float64)
    outputs, state = layer(x)
    _, constant = layer.score_projection()
    with torch.no_grad():
        layer.key.bias.zero_()
        bare_outputs, bare_state = layer(x)
    torch.testing.assert_close(outputs, bare_outputs, rtol=0, atol=1e-12)
    torch.testing.assert_close(
        state.log_normalizer() - bare_state.log_normalizer(), constant[None], rtol=0, atol=1e-12
    )


def test_scores_and_state_stay_float32_under_autocast() -> None:
    torch.manual_seed(0)
    layer = AarenAttention(32, 2)
    x = torch.randn(2, 9, 32)
    wanted = layer.scores(x)
    with torch.autocast("cpu", torch.bfloat16):
        scores = layer.scores(x)
        outputs, state = layer(x)
        outputs_low, state = layer(x.bfloat16(), state)
    assert scores.dtype == torch.float32
    assert outputs.dtype == outputs_low.dtype == torch.bfloat16
    torch.testing.assert_close(scores, wanted, rtol=0, atol=0)
    assert {term.dtype for term in state.terms} == {torch.float32}


def test_refuses_what_cannot_be() -> None:
    for heads in (3, 0, -2):
        with pytest.raises(ValueError, match=rf"heads \({heads}\) must divide width \(8\)"):
            AarenAttention(8, heads)
    layer, x = AarenAttention(8), torch.zeros(2, 3, 8)
    with pytest.raises(ValueError, match=r"bool \[2, 3\] .* got torch.float32 \[2, 3\]"):
        layer(x, None, torch.ones(2, 3))
    with pytest.raises(ValueError, match=r"bool \[2, 3\] .* got torch.bool \[3, 2\]"):
        layer(x, None, torch.ones(3, 2, dtype=torch.bool))


def test_dilution_counts_tokens_many_times_in_training_alone() -> None:
    """Equal tokens: weights lie within a factor N of each other, log-uniformly, anew each time."""
    many, tokens = 50.0, 4000
    layer = AarenAttention(4, 2, dilution=many).double()
    plain = AarenAttention(4, 2).double()
    plain.load_state_dict(layer.state_dict())
    x = torch.randn(1, 1, 4, dtype=torch.float64).expand(1, tokens, 4)
    state, other = layer(x)[1], layer(x)[1]
    alone = layer.scores(x)[:, 0]
    counted = (state.log_normalizer() - alone).exp() / tokens
    expected = (many - 1) / math.log(many)  # the mean of N^u
    torch.testing.assert_close(counted, torch.full_like(counted, expected), rtol=0.1, atol=0)
    assert (counted[:, 0] != counted[:, 1]).all()
    assert (state.log_normalizer() != other.log_normalizer()).all()
    layer.eval()
    for mine, wanted in zip(
        (layer(x)[0], *layer(x)[1].terms), (plain(x)[0], *plain(x)[1].terms), strict=True
    ):
        assert torch.equal(mine, wanted)


@pytest.mark.parametrize("dilution", [0.5, 0.0, -3.0, math.inf, math.nan])
def test_refuses_what_dilutes_nothing(dilution: float) -> None:
    with pytest.raises(ValueError, match="dilution must be finite and at least 1, got"):
        AarenAttention(8, dilution=dilution)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("shape", [(2, 0, 4), (0, 3, 4), (0, 0, 4)])
@pytest.mark.parametrize("masked", [False, True])
def test_no_tokens_or_no_rows(heads: int, shape: tuple[int, ...], masked: bool) -> None:
    layer = AarenAttention(4, heads, recency=(0.1,) * heads)
    mask = torch.ones(shape[:2], dtype=torch.bool) if masked else None
    x = torch.randn(shape, requires_grad=True)
    before = layer(torch.randn(shape[0], 3, 4))[1]
    y, after = layer(x, before, mask)
    y.sum().backward()
    assert y.shape == shape
    if shape[1] == 0:
        torch.testing.assert_close(after.output(), before.output())
        torch.testing.assert_close(after.log_normalizer(), before.log_normalizer())


def test_the_mask_leaves_padding_out_wherever_it_lies() -> None:
    layer = random_layer(8, 2)
    x = torch.randn(1, 6, 8, dtype=torch.float64)
    mask = torch.tensor([[False, True, True, False, True, False]])
    outputs, state = layer(x, mask=mask)
    wanted, end = layer(x[mask][None])
    torch.testing.assert_close(outputs[mask][None], wanted)
    torch.testing.assert_close(state.output(), end.output())

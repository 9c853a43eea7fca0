"""Packed batches of sequences of different length: equal to each sequence on its own."""

import itertools

import pytest
import torch
from prefix_cases import BACKENDS

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, prefix_attention

LENGTHS = (3, 1, 0, 70, 33, 129, 2, 0)
HEADS, DIM = 2, 5


def draw(dtype=torch.float32, scale=1.0):
    generator = torch.Generator().manual_seed(0)
    time = sum(LENGTHS)
    offsets = torch.tensor([0, *LENGTHS]).cumsum(0)
    scores = (scale * torch.randn(1, time, HEADS, generator=generator)).to(dtype)
    scores[0, 20:30, 1] = -torch.inf
    values = torch.randn(1, time, HEADS, DIM, generator=generator).to(dtype)
    initial = [torch.randn(len(LENGTHS), HEADS, generator=generator)]
    initial += [1 + torch.rand(len(LENGTHS), HEADS, generator=generator)]
    initial += [torch.randn(len(LENGTHS), HEADS, DIM, generator=generator)]
    initial[0][2] = -torch.inf
    initial[1][2] = initial[2][2] = 0
    leaves = [leaf.requires_grad_() for leaf in (scores, values, *initial)]
    return offsets, leaves


def one_by_one(offsets, scores, values, *terms):
    """The definition, sequence by sequence, in float64."""
    outputs, states = [], []
    initial = PrefixState(*terms) if terms else None
    for row, (start, stop) in enumerate(itertools.pairwise(offsets)):
        output, state = prefix_attention(
            scores[:, start:stop].double(),
            values[:, start:stop].double(),
            initial_state=initial[row] if initial else None,
            backend="reference",
        )
        outputs.append(output)
        states.append((state.output(), state.log_normalizer()))
    state_output, log_normalizer = (torch.cat(parts) for parts in zip(*states, strict=True))
    return torch.cat(outputs, 1), state_output, log_normalizer


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
@pytest.mark.parametrize("with_state", [False, True])
@pytest.mark.parametrize("scale", [1.0, 1e4])
def test_packed_equals_one_by_one(backend, with_state, scale):
    offsets, leaves = draw(scale=scale)
    leaves = leaves if with_state else leaves[:2]
    terms = leaves[2:]
    outputs, state = prefix_attention(
        leaves[0],
        leaves[1],
        initial_state=PrefixState(*terms) if terms else None,
        cu_seqlens=offsets.int(),
        backend=backend,
    )
    got = (outputs, state.output(), state.log_normalizer())
    wanted = one_by_one(offsets, *leaves)
    for first, second in zip(got, wanted, strict=True):
        assert first.dtype == torch.float32
        torch.testing.assert_close(first.double(), second, rtol=5e-6, atol=5e-6)
    upstream = [torch.randn(result.shape) for result in wanted]
    gradients = torch.autograd.grad(got, leaves, upstream)
    wanted_gradients = torch.autograd.grad(wanted, leaves, [u.double() for u in upstream])
    for first, second in zip(gradients, wanted_gradients, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=5e-5)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_nothing_leaks_over_a_boundary(backend):
    offsets, (scores, values, *_) = draw()
    spoilt = values.detach().clone()
    spoilt[:, 4:74] = 1e30  # the sequence of 70 tokens
    outputs, state = prefix_attention(scores, values, cu_seqlens=offsets, backend=backend)
    changed, changed_state = prefix_attention(scores, spoilt, cu_seqlens=offsets, backend=backend)
    assert torch.equal(outputs[:, :4], changed[:, :4])
    assert torch.equal(outputs[:, 74:], changed[:, 74:])
    others = torch.arange(len(LENGTHS)) != 3
    assert torch.equal(state[others].weighted_sum, changed_state[others].weighted_sum)
    gradient = torch.autograd.grad(outputs[:, 4:74].sum(), values)[0]
    assert (gradient[:, :4] == 0).all()
    assert (gradient[:, 74:] == 0).all()


@pytest.mark.parametrize(
    ("offsets", "batch", "message"),
    [
        ([0, 2, 3], 2, r"batch of 1 expected.*values \[2, 3, 1, 4\]"),
        ([[0, 3]], 1, r"cu_seqlens \[1, 2\]"),
        ([0], 1, r"cu_seqlens \[1\]"),
        ([0, 2, 4], 1, "rise from 0 to the time axis's length 3"),
        ([1, 2, 3], 1, "rise from 0"),
        ([0, 2, 1, 3], 1, "rise from 0"),
        ([0.0, 3.0], 1, "int32 or int64, got torch.float32"),
    ],
)
def test_wrong_offsets(offsets, batch, message):
    scores, values = torch.zeros(batch, 3, 1), torch.zeros(batch, 3, 1, 4)
    with pytest.raises(UserError, match=message):
        prefix_attention(scores, values, cu_seqlens=torch.tensor(offsets))


def test_the_state_needs_a_row_a_sequence():
    with pytest.raises(UserError, match=r"initial state of shape \[2, 1, 4\].*got \[1, 1, 4\]"):
        prefix_attention(
            torch.zeros(1, 3, 1),
            torch.zeros(1, 3, 1, 4),
            initial_state=PrefixState.empty(1, 1, 4),
            cu_seqlens=torch.tensor([0, 1, 3]),
        )

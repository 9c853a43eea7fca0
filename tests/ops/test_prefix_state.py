"""The state alone, and states carried over a split."""

import itertools

import hypothesis.strategies as st
import pytest
import torch
from hypothesis import given, settings
from prefix_cases import BACKENDS

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, prefix_attention

SCORE_SCALES = (1.0, 30.0, 1e4)


def draw_state(seed: int, scale: float, tokens: int) -> PrefixState:
    """The state of a few tokens in float64; of none if `tokens` is 0."""
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(2, tokens, 3, generator=generator, dtype=torch.float64)
    values = torch.randn(2, tokens, 3, 4, generator=generator, dtype=torch.float64)
    return prefix_attention(scores, values, backend="recurrent")[1]


def assert_same_state(first: PrefixState, second: PrefixState, **tolerance: float) -> None:
    torch.testing.assert_close(first.output(), second.output(), **tolerance)
    torch.testing.assert_close(first.log_normalizer(), second.log_normalizer(), **tolerance)


states = st.builds(
    draw_state, st.integers(0, 10_000), st.sampled_from(SCORE_SCALES), st.integers(0, 4)
)


@settings(deadline=None)
@given(states, states, states)
def test_merge_is_associative_and_commutative_with_identity(a, b, c):
    assert_same_state(a.merge(b).merge(c), a.merge(b.merge(c)))
    assert_same_state(a.merge(b), b.merge(a), rtol=0, atol=0)
    empty = PrefixState.empty(2, 3, 4, dtype=torch.float64)
    assert_same_state(a.merge(empty), a, rtol=0, atol=0)
    assert_same_state(empty.merge(a), a, rtol=0, atol=0)


@settings(deadline=None, max_examples=60)
@given(
    st.sampled_from(["auto", *BACKENDS]),
    st.integers(1, 150),
    st.lists(st.integers(0, 150), max_size=4),
    st.sampled_from(SCORE_SCALES),
    st.integers(0, 10_000),
)
def test_a_split_with_the_state_carried_changes_nothing(backend, length, cuts, scale, seed):
    generator = torch.Generator().manual_seed(seed)
    scores = scale * torch.randn(2, length, 2, generator=generator)
    scores[torch.rand(scores.shape, generator=generator) < 0.2] = -torch.inf
    values = torch.randn(2, length, 2, 3, generator=generator)
    scores.requires_grad_()
    values.requires_grad_()
    whole, whole_state = prefix_attention(scores, values, backend=backend)

    edges = [0, *sorted(min(cut, length) for cut in cuts), length]
    state, parts = PrefixState.empty(2, 2, 3), []
    for start, stop in itertools.pairwise(edges):
        piece = (scores[:, start:stop], values[:, start:stop])
        part, state = prefix_attention(*piece, initial_state=state, backend=backend)
        parts.append(part)
    outputs = torch.cat(parts, 1)
    torch.testing.assert_close(outputs, whole, rtol=2e-6, atol=2e-6)
    assert_same_state(state, whole_state, rtol=2e-6, atol=2e-6)

    upstream = torch.randn(whole.shape, generator=generator)
    upstream_state = torch.randn(2, 2, 3, generator=generator)
    inputs = (scores, values)
    wanted = torch.autograd.grad((whole, whole_state.output()), inputs, (upstream, upstream_state))
    got = torch.autograd.grad((outputs, state.output()), inputs, (upstream, upstream_state))
    bound = 1e-5 * (1 + float(wanted[1].abs().max()) * float(values.detach().abs().max()))
    for name, first, second in zip(("scores", "values"), got, wanted, strict=True):
        torch.testing.assert_close(
            first, second, rtol=1e-5, atol=bound, msg=lambda m, n=name: f"d {n}: {m}"
        )


def test_the_empty_state_has_no_output():
    empty = PrefixState.empty(2, 3, 4)
    assert (empty.output() == 0).all()
    assert (empty.log_normalizer() == -torch.inf).all()
    weighted_sum = empty.weighted_sum.requires_grad_()
    normalizer = empty.normalizer.requires_grad_()
    state = PrefixState(empty.maximum, normalizer, weighted_sum)
    state = state.merge(PrefixState.empty(2, 3, 4))
    (state.output().sum() + state.log_normalizer().sum()).backward()
    assert weighted_sum.grad.isfinite().all()
    assert normalizer.grad.isfinite().all()


def test_bytes_do_not_grow_with_the_sequence():
    wanted = 4 * 2 * 3 * (2 + 4)
    state = PrefixState.empty(2, 3, 4)
    assert state.nbytes == wanted
    for length in (1, 1000):
        scores, values = torch.randn(2, length, 3), torch.randn(2, length, 3, 4)
        for backend in BACKENDS:
            _, state = prefix_attention(scores, values, initial_state=state, backend=backend)
            assert state.nbytes == wanted
            # A view would keep the whole sequence alive behind a small state.
            held = sum(term.untyped_storage().nbytes() for term in state.terms)
            assert held == wanted, backend


def test_reset_empties_only_the_marked_rows():
    state = draw_state(0, 1.0, 3)
    fresh = state.reset(torch.tensor([True, False]))
    assert_same_state(fresh[0], PrefixState.empty(1, 3, 4, dtype=torch.float64))
    assert_same_state(fresh[1], state[1])
    with pytest.raises(UserError, match=r"bool mask of shape \[2\].*int64 \[2\]"):
        state.reset(torch.tensor([1, 0]))
    with pytest.raises(UserError, match=r"shape \[2\] expected.*\[3\]"):
        state.reset(torch.tensor([True, False, True]))


def test_indexing_the_batch():
    state = draw_state(0, 1.0, 3)
    assert state[-1].weighted_sum.shape == (1, 3, 4)
    assert_same_state(state[-1], state[1:])
    assert_same_state(state[torch.tensor([1, 0])][0], state[1])
    assert state[torch.tensor([False, False])].maximum.shape == (0, 3)
    with pytest.raises(IndexError, match="row 2 of a PrefixState of 2 rows"):
        state[2]


def test_moving_and_detaching():
    state = draw_state(0, 1.0, 3)
    assert state.to(dtype=torch.float32).nbytes == state.nbytes // 2
    assert state.to("meta").weighted_sum.is_meta
    scores, values = torch.randn(1, 3, 1, requires_grad=True), torch.randn(1, 3, 1, 2)
    _, state = prefix_attention(scores, values)
    assert state.weighted_sum.requires_grad
    assert not state.maximum.requires_grad
    assert not any(term.requires_grad for term in state.detach().terms)
    with pytest.raises(UserError, match=r"one shape.*\[1, 1, 2\] and \[2, 3, 4\]"):
        state.merge(draw_state(0, 1.0, 1))

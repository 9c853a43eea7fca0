"""Every backend against the float64 definition: outputs, final state and all gradients."""

import pytest
import torch
from prefix_cases import (
    BACKENDS,
    DOUBLE_BACKENDS,
    LENGTHS,
    PATTERNS,
    Result,
    assert_close,
    expected,
    make_case,
    run_case,
)

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, prefix_attention
from aaren_rl.ops.state import divide


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_agrees_with_the_definition(backend, length, pattern, dtype):
    for with_state in (False, True):
        case = make_case(pattern, length, dtype, with_state)
        wanted = expected(pattern, length, dtype, with_state)
        assert_close(run_case(case, backend), wanted, case)


def test_the_definition_is_softmax_over_each_prefix():
    scores, values = torch.randn(2, 9, 3).double(), torch.randn(2, 9, 3, 4).double()
    outputs, state = prefix_attention(scores, values, backend="reference")
    for k in range(9):
        weights = scores[:, : k + 1].softmax(1)
        wanted = (weights[..., None] * values[:, : k + 1]).sum(1)
        torch.testing.assert_close(outputs[:, k], wanted)
    torch.testing.assert_close(state.log_normalizer(), scores.logsumexp(1))
    torch.testing.assert_close(state.output(), outputs[:, -1])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("pattern", PATTERNS)
def test_without_gradients_agrees_too(backend, pattern):
    case = make_case(pattern, 65, torch.float32, True)
    wanted = expected(pattern, 65, torch.float32, True)
    with torch.no_grad():
        outputs, state = prefix_attention(
            case.scores, case.values, initial_state=case.initial, backend=backend
        )
    torch.testing.assert_close(outputs.double(), wanted.outputs, rtol=6e-6, atol=6e-6)
    torch.testing.assert_close(state.output().double(), wanted.state_output, rtol=6e-6, atol=6e-6)


@pytest.mark.parametrize("backend", ["auto", *DOUBLE_BACKENDS])
def test_gradcheck(backend):
    torch.manual_seed(0)
    length = 41  # more than one chunk, and a rest
    scores = torch.randn(1, length, 2, dtype=torch.float64)
    scores[:, 5:9, 0] = -torch.inf
    present = scores > -torch.inf
    finite = scores[present].requires_grad_()
    values = torch.randn(1, length, 2, 3, dtype=torch.float64, requires_grad=True)
    maximum = torch.randn(1, 2, dtype=torch.float64, requires_grad=True)
    normalizer = (1 + torch.rand(1, 2, dtype=torch.float64)).requires_grad_()
    weighted_sum = torch.randn(1, 2, 3, dtype=torch.float64, requires_grad=True)

    def call(finite, values, maximum, normalizer, weighted_sum):
        full = scores.masked_scatter(present, finite)
        initial = PrefixState(maximum, normalizer, weighted_sum)
        outputs, state = prefix_attention(full, values, initial_state=initial, backend=backend)
        return outputs, state.output(), state.log_normalizer()

    assert torch.autograd.gradcheck(call, (finite, values, maximum, normalizer, weighted_sum))


def single_float32_log_normalizer(case):
    """The trap: L = m + log u kept as one float32 number."""
    norm = torch.logcumsumexp(case.scores, 1)
    weights = torch.exp(case.scores[:, None] - norm[:, :, None])
    weights = weights * torch.ones(weights.shape[1:3]).tril()[None, :, :, None]
    return torch.einsum("bkih,bihd->bkhd", weights, case.values)


def cumsum_of_mixed_maxima(case):
    """The trap: terms relative to different maxima are added up."""
    weights = torch.exp(case.scores - case.scores.cummax(1).values)
    return divide((weights[..., None] * case.values).cumsum(1), weights.cumsum(1))


def cumsum_below_the_last_maximum(case):
    """The trap: 0/0 for a prefix far below the maximum of the whole sequence."""
    weights = torch.exp(case.scores - case.scores.amax(1, keepdim=True))
    return divide((weights[..., None] * case.values).cumsum(1), weights.cumsum(1))


@pytest.mark.parametrize(
    ("trap", "pattern"),
    [
        (single_float32_log_normalizer, "near"),
        (cumsum_of_mixed_maxima, "plain"),
        (cumsum_below_the_last_maximum, "rising"),
    ],
)
def test_the_check_catches_known_traps(trap, pattern):
    case = make_case(pattern, 65, torch.float32, False)
    wanted = expected(pattern, 65, torch.float32, False)
    spoilt = Result(trap(case), *list(vars(wanted).values())[1:])
    with pytest.raises(AssertionError, match="outputs"):
        assert_close(spoilt, wanted, case)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_scores_and_values_may_differ_in_dtype(backend):
    scores, values = torch.randn(2, 40, 1), torch.randn(2, 40, 1, 3)
    wanted, _ = prefix_attention(scores, values.half(), backend="reference")
    outputs, state = prefix_attention(scores, values.half(), backend=backend)
    assert outputs.dtype == torch.float16
    assert state.maximum.dtype == state.weighted_sum.dtype == torch.float32
    torch.testing.assert_close(outputs, wanted, rtol=2e-3, atol=2e-3)
    if backend in ("auto", *DOUBLE_BACKENDS):
        outputs, state = prefix_attention(scores.double(), values, backend=backend)
        assert outputs.dtype == torch.float32
        assert state.normalizer.dtype == torch.float64


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_autocast_changes_nothing(backend):
    scores = 1e3 * torch.randn(2, 50, 2)
    values = torch.randn(2, 50, 2, 4, requires_grad=True)
    wanted, _ = prefix_attention(scores, values, backend=backend)
    wanted.square().sum().backward()
    d_wanted, values.grad = values.grad, None
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs, state = prefix_attention(scores, values, backend=backend)
        outputs.square().sum().backward()
    assert state.weighted_sum.dtype == outputs.dtype == torch.float32
    torch.testing.assert_close(outputs, wanted, rtol=0, atol=0)
    torch.testing.assert_close(values.grad, d_wanted, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_no_tokens_and_no_rows(backend):
    initial = PrefixState.empty(2, 3, 4)
    initial = PrefixState(initial.maximum + 1.0, initial.normalizer + 2.0, initial.weighted_sum + 3)
    outputs, state = prefix_attention(
        torch.zeros(2, 0, 3), torch.zeros(2, 0, 3, 4), initial_state=initial, backend=backend
    )
    assert outputs.shape == (2, 0, 3, 4)
    torch.testing.assert_close(state.output(), initial.output())
    torch.testing.assert_close(state.log_normalizer(), initial.log_normalizer())
    outputs, state = prefix_attention(
        torch.zeros(0, 5, 3), torch.zeros(0, 5, 3, 4), backend=backend
    )
    assert outputs.shape == (0, 5, 3, 4)
    assert state.weighted_sum.shape == (0, 3, 4)


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_a_nan_is_never_hidden(backend):
    scores, values = torch.randn(1, 70, 1), torch.randn(1, 70, 1, 2)
    scores[0, 40] = torch.nan
    outputs, state = prefix_attention(scores, values, backend=backend)
    assert outputs[:, 40:].isnan().all()
    assert state.output().isnan().all()


@pytest.mark.parametrize("backend", ["auto", *BACKENDS])
def test_layouts_that_are_not_contiguous(backend):
    scores = torch.randn(3, 2, 70).permute(1, 2, 0)
    values = torch.randn(2, 70, 4, 6)[..., 1::2].transpose(-1, -2).requires_grad_()
    outputs, _ = prefix_attention(scores, values, backend=backend)
    wanted, _ = prefix_attention(scores, values, backend="reference")
    torch.testing.assert_close(outputs, wanted)
    d_outputs = torch.randn(2, 4, 70, 3).permute(0, 2, 3, 1)
    gradient = torch.autograd.grad(outputs, values, d_outputs)[0]
    torch.testing.assert_close(gradient, torch.autograd.grad(wanted, values, d_outputs)[0])


SCORES, VALUES = torch.zeros(2, 3, 4), torch.zeros(2, 3, 4, 5)


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: prefix_attention(SCORES, VALUES, backend="fast"), "unknown backend 'fast'.*scan"),
        (lambda: prefix_attention(SCORES[0], VALUES), r"got scores \[3, 4\]"),
        (lambda: prefix_attention(SCORES[:, :2], VALUES), r"scores \[2, 2, 4\] and values"),
        (lambda: prefix_attention(SCORES, VALUES[..., 0]), r"values \[2, 3, 4\]"),
        (lambda: prefix_attention(SCORES.int(), VALUES), "scores must be floating.*int32"),
        (lambda: prefix_attention(SCORES, VALUES.to(torch.complex64)), "values must be floating"),
        (lambda: prefix_attention(SCORES.to("meta"), VALUES), "scores on meta but values on cpu"),
        (
            lambda: prefix_attention(SCORES, VALUES, initial_state=PrefixState.empty(2, 4, 6)),
            r"initial state of shape \[2, 4, 5\].*got \[2, 4, 6\]",
        ),
        (
            lambda: prefix_attention(
                SCORES, VALUES, initial_state=PrefixState.empty(2, 4, 5, device="meta")
            ),
            "initial state on meta but values on cpu",
        ),
    ],
)
def test_misuse_is_one_clear_line(call, message):
    with pytest.raises(UserError, match=message) as caught:
        call()
    assert "\n" not in str(caught.value)

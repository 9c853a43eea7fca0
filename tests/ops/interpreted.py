"""Tests of the Triton backend alone, for its interpreter: run by test_prefix_triton.py."""

import pytest
import torch
from prefix_cases import INTERPRETED, assert_close, expected, make_case, run_case

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, prefix_attention
from aaren_rl.ops.triton import launch

assert INTERPRETED


@pytest.mark.parametrize("segments", [2, 5])
@pytest.mark.parametrize("pattern", ["rising", "falling", "middle"])
def test_a_time_axis_in_segments(segments, pattern, monkeypatch):
    monkeypatch.setattr(launch, "count_segments", lambda *_: segments)
    case = make_case(pattern, 65, torch.float32, True)
    assert_close(run_case(case, "triton"), expected(pattern, 65, torch.float32, True), case)


@pytest.mark.parametrize("segments", [1, 3])
@pytest.mark.parametrize("dim", [33, 70])
def test_widths_that_leave_a_tail(segments, dim, monkeypatch):
    monkeypatch.setattr(launch, "count_segments", lambda *_: segments)
    offsets = torch.tensor([0, 1, 20, 20, 57])
    leaves = [torch.randn(1, 57, 2), torch.randn(1, 57, 2, dim)]
    leaves += [torch.randn(4, 2), 1 + torch.rand(4, 2), torch.randn(4, 2, dim)]
    results = []
    for backend in ("triton", "scan"):
        inputs = [leaf.detach().clone().requires_grad_() for leaf in leaves]
        outputs, state = prefix_attention(
            *inputs[:2],
            initial_state=PrefixState(*inputs[2:]),
            cu_seqlens=offsets,
            backend=backend,
        )
        loss = outputs.sin().sum() + state.output().cos().sum() + state.log_normalizer().sum()
        results.append([outputs, *torch.autograd.grad(loss, inputs)])
    for first, second in zip(*results, strict=True):
        torch.testing.assert_close(first, second, rtol=1e-5, atol=5e-5)


def test_operator_is_registered_soundly():
    leaves = [torch.randn(1, 9, 2), torch.randn(1, 9, 2, 4)]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    operator = torch.ops.aaren_rl.prefix_attention_triton.default
    torch.library.opcheck(
        operator,
        (*leaves, None, None, None, torch.tensor([0, 4, 9])),
        test_utils=("test_schema", "test_autograd_registration", "test_faketensor"),
    )


def test_float64_is_refused():
    with pytest.raises(UserError, match=r"'triton' takes float16.*got float64.*'chunked'"):
        prefix_attention(torch.zeros(1, 2, 1), torch.zeros(1, 2, 1, 3).double(), backend="triton")

"""On a real GPU: the same matrix, odd shapes, determinism, compilation; skipped without one."""

import pytest
import torch
from prefix_cases import LENGTHS, PATTERNS, assert_close, expected, make_case, run_case

from aaren_rl.ops import PrefixState, available_backends, prefix_attention

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU"),
]


@pytest.mark.parametrize("backend", ["triton", "chunked", "scan", "auto"])
@pytest.mark.parametrize("length", LENGTHS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=["f32", "bf16"])
def test_agrees_with_the_definition(backend, length, dtype):
    for pattern in PATTERNS:
        for with_state in (False, True):
            case = make_case(pattern, length, dtype, with_state)
            wanted = expected(pattern, length, dtype, with_state)
            assert_close(run_case(case, backend, device="cuda"), wanted, case)


def gradients(backend, leaves, **options):
    leaves = [leaf.detach().requires_grad_() for leaf in leaves]
    outputs, state = prefix_attention(*leaves, backend=backend, **options)
    loss = outputs.float().sin().sum() + state.output().cos().sum()
    return [outputs.detach(), *torch.autograd.grad(loss, leaves)]


@pytest.mark.parametrize("shape", [(1, 20_000, 1, 128), (3, 5000, 2, 70), (300, 60, 4, 32)])
def test_many_shapes_and_the_same_every_time(shape):
    leaves = [torch.randn(shape[:3], device="cuda"), torch.randn(shape, device="cuda")]
    first = gradients("triton", leaves)
    again = gradients("triton", leaves)
    for one, two, three in zip(first, again, gradients("chunked", leaves), strict=True):
        assert torch.equal(one, two)
        torch.testing.assert_close(one, three, rtol=1e-4, atol=1e-3)


def test_packed():
    offsets = torch.tensor([0, 1, 700, 700, 3000], device="cuda")
    leaves = [torch.randn(1, 3000, 2, device="cuda"), torch.randn(1, 3000, 2, 64, device="cuda")]
    got = gradients("triton", leaves, cu_seqlens=offsets)
    wanted = gradients("chunked", leaves, cu_seqlens=offsets)
    for one, two in zip(got, wanted, strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-3)


def test_compiles_without_a_graph_break():
    assert "triton" in available_backends()

    def loss(scores, values):
        outputs, state = prefix_attention(scores, values, backend="triton")
        return outputs.square().sum() + state.output().sum()

    leaves = [torch.randn(2, 100, 2, device="cuda"), torch.randn(2, 100, 2, 64, device="cuda")]
    leaves = [leaf.requires_grad_() for leaf in leaves]
    compiled = torch.compile(loss, fullgraph=True)
    got = torch.autograd.grad(compiled(*leaves), leaves)
    for one, two in zip(got, torch.autograd.grad(loss(*leaves), leaves), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-4)


def test_the_acting_state_moves_between_devices():
    scores, values = torch.randn(2, 50, 1), torch.randn(2, 50, 1, 8)
    whole, _ = prefix_attention(scores, values)
    _, state = prefix_attention(scores[:, :20], values[:, :20])
    moved = PrefixState(*(term.cuda() for term in state.terms))
    rest, _ = prefix_attention(scores[:, 20:].cuda(), values[:, 20:].cuda(), initial_state=moved)
    torch.testing.assert_close(rest.cpu(), whole[:, 20:], rtol=1e-5, atol=1e-5)

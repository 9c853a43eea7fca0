"""Second derivatives and `torch.func`: right, or refused in a sentence; never silently zero."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops import PrefixState, available_backends, prefix_attention

BACKENDS = [name for name in available_backends() if name != "triton"]
FUSED = [name for name in BACKENDS if name not in ("reference", "recurrent", "scan")]
TOKENS, HEADS, DIM = 7, 2, 3
OFFSETS = torch.tensor([0, 3, 3, 7])


def inputs(rows: int = 1) -> tuple[Tensor, ...]:
    """Scores, values and the terms of an initial state of some rows, float64."""
    torch.manual_seed(0)
    shapes = ((1, TOKENS, HEADS), (1, TOKENS, HEADS, DIM), (rows, HEADS), (rows, HEADS))
    scores, values, maximum, normalizer = (torch.randn(s, dtype=torch.float64) for s in shapes)
    sums = torch.randn(rows, HEADS, DIM, dtype=torch.float64)
    return scores, values, maximum, normalizer.exp(), sums


def number(backend: str, given: tuple[Tensor, ...], cu_seqlens: Tensor | None = None) -> Tensor:
    """Something that depends on every input in a curved way."""
    scores, values, *terms = given
    state = PrefixState(*terms) if terms else None
    outputs, final = prefix_attention(
        scores, values, initial_state=state, cu_seqlens=cu_seqlens, backend=backend
    )
    return outputs.square().sum() + final.output().sin().sum() + final.log_normalizer().cos().sum()


@pytest.mark.parametrize("backend", ["auto", *FUSED])
@pytest.mark.parametrize("cu_seqlens", [None, OFFSETS], ids=["rows", "packed"])
def test_gradients_can_be_differentiated(backend: str, cu_seqlens: Tensor | None) -> None:
    rows = 1 if cu_seqlens is None else len(cu_seqlens) - 1
    seconds = []
    for name in (backend, "reference"):
        given = tuple(each.requires_grad_() for each in inputs(rows))
        first = torch.autograd.grad(number(name, given, cu_seqlens), given, create_graph=True)
        curved = sum(((gradient**3).sum() for gradient in first), torch.zeros(()))
        seconds.append(torch.autograd.grad(curved, given))
    for got, wanted in zip(*seconds, strict=True):
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(got, wanted)


def test_the_hessian_is_not_zero() -> None:
    """It was, with the default backend: a graph that ended at the first gradient."""
    scores, values, *_ = inputs()

    def of(name: str) -> Tensor:
        found = torch.autograd.functional.hessian(lambda s: number(name, (s, values)), scores)
        assert isinstance(found, Tensor)
        return found

    assert of("reference").abs().sum() > 1
    torch.testing.assert_close(of("auto"), of("reference"))


@pytest.mark.parametrize("backend", ["auto", "recurrent", "scan"])
def test_torch_func(backend: str) -> None:
    scores, values, *_ = inputs()

    def results(name: str) -> list[Tensor]:
        def of(s: Tensor) -> Tensor:
            return number(name, (s, values))

        batch = torch.stack([scores, 2 * scores])
        with torch.autograd.forward_ad.dual_level():
            dual = torch.autograd.forward_ad.make_dual(scores, scores)
            forward = torch.autograd.forward_ad.unpack_dual(of(dual)).tangent
        return [
            torch.func.grad(of)(scores),
            torch.func.hessian(of)(scores),
            torch.func.jvp(of, (scores,), (scores,))[1],
            torch.func.vmap(torch.func.grad(of))(batch),
            forward,
        ]

    for got, wanted in zip(results(backend), results("reference"), strict=True):
        assert wanted.abs().max() > 1e-3
        torch.testing.assert_close(got, wanted)


@pytest.mark.parametrize("backend", FUSED)
def test_a_backend_that_torch_func_cannot_follow_says_so(backend: str) -> None:
    scores, values, *_ = inputs()
    with pytest.raises(UserError, match=f"torch.func .* backend '{backend}'; use auto"):
        torch.func.grad(lambda s: number(backend, (s, values)))(scores)


def test_compiled_gradients_have_no_second_derivatives() -> None:
    """The operator that compiled code calls: its gradients refuse to be differentiated."""
    if "cpu" not in FUSED:
        pytest.skip("the extension is not built")
    scores, values, *_ = (each.requires_grad_() for each in inputs())
    outputs = torch.ops.aaren_rl.prefix_attention_cpu(scores, values, None, None, None, None)[0]
    (first,) = torch.autograd.grad(outputs.square().sum(), scores, create_graph=True)
    with pytest.raises(UserError, match="no second derivatives"):
        first.sum().backward()

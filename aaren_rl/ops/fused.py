"""Shared part of the fused backends: an operator of `torch.library` around a pair of kernels.

Registered operators go through `torch.compile` and `torch.export` without a graph break: their
shapes come from the fake kernels below, their gradients from the formula below.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops.packed import Backend
from aaren_rl.ops.scan import differentiable_gradients
from aaren_rl.ops.state import PrefixState, state_dtype

Optional = Tensor | None
Forward = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]]
Backward = Callable[..., tuple[Tensor, Tensor, Tensor, Tensor, Tensor]]

_LIBRARY = torch.library.Library("aaren_rl", "FRAGMENT")

_FORWARD_SCHEMA = (
    "(Tensor scores, Tensor values, Tensor? m0, Tensor? u0, Tensor? w0, Tensor? cu_seqlens) -> "
    "(Tensor outputs, Tensor m, Tensor u, Tensor m_end, Tensor u_end, Tensor w_end)"
)
_BACKWARD_SCHEMA = (
    "(Tensor? d_outputs, Tensor? du_end, Tensor? dw_end, Tensor scores, Tensor values, "
    "Tensor outputs, Tensor m, Tensor u, Tensor? m0, Tensor? u0, Tensor? w0, "
    "Tensor? cu_seqlens) -> "
    "(Tensor d_scores, Tensor d_values, Tensor dm0, Tensor du0, Tensor dw0)"
)


def register(name: str, forward: Forward, backward: Backward, dispatch_key: str) -> Backend:
    """Register `aaren_rl::{name}` and its backward, and return it as a backend.

    Args:
        name: of the operator.
        forward: kernel `(scores, values, m0, u0, w0, cu_seqlens) -> (outputs, m, u, m_end, u_end,
            w_end)`; m and u are those of every prefix, `[batch, heads, time]`.
        backward: kernel with the arguments of `_BACKWARD_SCHEMA`; where there is no initial state
            the last three results are empty tensors.
        dispatch_key: `CPU` or `CUDA`: the device that the kernels run on.
    """
    _LIBRARY.define(name + _FORWARD_SCHEMA)
    _LIBRARY.define(f"{name}_backward" + _BACKWARD_SCHEMA)
    _LIBRARY.impl(name, forward, dispatch_key)
    _LIBRARY.impl(f"{name}_backward", backward, dispatch_key)
    torch.library.register_fake(f"aaren_rl::{name}", _fake_forward, lib=_LIBRARY)
    torch.library.register_fake(f"aaren_rl::{name}_backward", _fake_backward, lib=_LIBRARY)
    operator = getattr(torch.ops.aaren_rl, name).default
    operator_backward = getattr(torch.ops.aaren_rl, f"{name}_backward").default

    torch.library.register_autograd(
        f"aaren_rl::{name}",
        _backward_formula(operator_backward),
        setup_context=_save,
        lib=_LIBRARY,
    )
    torch.library.register_autograd(
        f"aaren_rl::{name}_backward", _no_second_derivative, lib=_LIBRARY
    )
    eager = _eager_function(forward, backward)

    def run(
        scores: Tensor, values: Tensor, state: PrefixState | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, PrefixState]:
        terms = (None, None, None) if state is None else state.terms
        plain = type(values) in (Tensor, torch.nn.Parameter) and not torch.compiler.is_compiling()
        call = eager if plain else operator
        outputs, _, _, m_end, u_end, w_end = call(scores, values, *terms, cu_seqlens)
        return outputs, PrefixState(m_end, u_end, w_end)

    return run


def _backward_formula(backward: Callable[..., tuple[Tensor, ...]]) -> Callable[..., Any]:
    """The gradient formula, around the backward kernel or the operator that wraps it."""

    def formula(
        ctx: Any, d_outputs: Optional, _m: None, _u: None, _end: None, du: Optional, dw: Optional
    ) -> tuple[Optional, ...]:
        scores, values, outputs, m, u, m0, u0, w0, cu_seqlens = ctx.saved_tensors
        saved = (scores, values, outputs, m, u, m0, u0, w0, cu_seqlens)
        d_scores, d_values, dm0, du0, dw0 = backward(d_outputs, du, dw, *saved)
        if m0 is None:
            return d_scores, d_values, None, None, None, None
        return d_scores, d_values, dm0, du0, dw0, None

    return formula


def _no_second_derivative(ctx: Any, *gradients: Optional) -> tuple[Optional, ...]:
    raise UserError(
        "prefix_attention: compiled code and tensor subclasses have no second derivatives with "
        "this backend; use backend='scan'"
    )


def _eager_function(forward: Forward, backward: Backward) -> Callable[..., tuple[Tensor, ...]]:
    """The same without the dispatcher's detours, which cost more than a short sequence does."""
    formula = _backward_formula(backward)

    class Eager(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, *inputs: Optional) -> tuple[Tensor, ...]:
            results = forward(*inputs)
            _save(ctx, inputs, results)
            return results

        @staticmethod
        def backward(ctx: Any, *gradients: Optional) -> tuple[Optional, ...]:
            if not torch.is_grad_enabled():
                return formula(ctx, *gradients)
            scores, values, _, _, _, m0, u0, w0, cu_seqlens = ctx.saved_tensors
            d_outputs, _, _, _, du, dw = gradients
            inputs = (scores, values, m0, u0, w0)
            return *differentiable_gradients(inputs, cu_seqlens, (d_outputs, du, dw)), None

    def call(*inputs: Optional) -> tuple[Tensor, ...]:
        if torch.is_grad_enabled():
            return Eager.apply(*inputs)
        return forward(*inputs)

    return call


def _save(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, ...]) -> None:
    scores, values, m0, u0, w0, cu_seqlens = inputs
    outputs, m, u, m_end, _, _ = output
    ctx.set_materialize_grads(False)
    ctx.mark_non_differentiable(m, u, m_end)
    ctx.save_for_backward(scores, values, outputs, m, u, m0, u0, w0, cu_seqlens)


def _fake_forward(
    scores: Tensor,
    values: Tensor,
    m0: Optional,
    u0: Optional,
    w0: Optional,
    cu_seqlens: Optional,
) -> tuple[Tensor, ...]:
    batch, time, heads, dim = values.shape
    rows = batch if cu_seqlens is None else cu_seqlens.shape[0] - 1
    dtype = state_dtype(scores, values)
    line = values.new_empty((batch, heads, time), dtype=dtype)
    end = values.new_empty((rows, heads), dtype=dtype)
    weighted_sum = values.new_empty((rows, heads, dim), dtype=dtype)
    outputs = values.new_empty(values.shape)
    return outputs, line, torch.empty_like(line), end, torch.empty_like(end), weighted_sum


def _fake_backward(
    d_outputs: Optional,
    du_end: Optional,
    dw_end: Optional,
    scores: Tensor,
    values: Tensor,
    outputs: Tensor,
    m: Tensor,
    u: Tensor,
    m0: Optional,
    u0: Optional,
    w0: Optional,
    cu_seqlens: Optional,
) -> tuple[Tensor, ...]:
    d_scores, d_values = scores.new_empty(scores.shape), values.new_empty(values.shape)
    if m0 is None or u0 is None or w0 is None:
        return d_scores, d_values, m.new_empty(0), m.new_empty(0), m.new_empty(0)
    initial = (m0.new_empty(m0.shape), u0.new_empty(u0.shape), w0.new_empty(w0.shape))
    return d_scores, d_values, *initial

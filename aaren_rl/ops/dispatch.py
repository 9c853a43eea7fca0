"""The public function: checks its arguments, picks a backend and calls it."""

from __future__ import annotations

import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops import triton as triton_kernels
from aaren_rl.ops.chunked import chunked
from aaren_rl.ops.cpu import cpu, is_built
from aaren_rl.ops.packed import Backend, check_offsets, with_packing
from aaren_rl.ops.recurrent import recurrent
from aaren_rl.ops.reference import reference
from aaren_rl.ops.scan import scan
from aaren_rl.ops.state import PrefixState, is_transformed, needs_grad, state_dtype

_BACKENDS: dict[str, Backend] = {
    "reference": with_packing(reference),
    "recurrent": with_packing(recurrent),
    "scan": with_packing(scan),
    "chunked": with_packing(chunked),
    "cpu": cpu,
}
if triton_kernels.triton is not None:
    _BACKENDS["triton"] = triton_kernels.triton
_DEVICES = {"cpu": "cpu", "triton": triton_kernels.DEVICE}
"""Backends that run on one kind of device only."""
_TRANSFORMABLE = ("reference", "recurrent", "scan")
"""Backends made of torch's own operations, which `torch.func` can follow."""
_FEW = 4
"""Without gradients (acting) the recurrent form is faster than a chunk up to this many tokens."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this installation can run."""
    usable = {"cpu": is_built, "triton": triton_kernels.is_usable}
    return tuple(name for name in _BACKENDS if name not in usable or usable[name]())


def prefix_attention(
    scores: Tensor,
    values: Tensor,
    *,
    initial_state: PrefixState | None = None,
    cu_seqlens: Tensor | None = None,
    backend: str = "auto",
) -> tuple[Tensor, PrefixState]:
    """Softmax attention over every prefix, `o_k = sum_{i<=k} e^{s_i} v_i / sum_{i<=k} e^{s_i}`.

    This is the attention of Feng et al. 2024 (arXiv 2405.13956), whose query does not depend on
    the token. Exact for any finite scores; a score of -inf means that the token does not exist
    (weight 0, gradient 0), and the output of an empty prefix is 0.

    Args:
        scores: `[batch, time, heads]`; float16, bfloat16, float32 or float64.
        values: `[batch, time, heads, dim]`; may differ from the scores in dtype.
        initial_state: the tokens before the first one; None for none. Gradients flow to it.
        cu_seqlens: for a packed batch, int32 or int64 `[sequences + 1]`, the cumulated lengths
            from 0 to time: batch must be 1, every sequence starts empty (or with its own row of
            the initial state), and the states have `sequences` rows. Best kept on the CPU, where
            its values are checked at no cost.
        backend: `auto` (by device and length) or one of `available_backends()`. Under `torch.func`
            and forward-mode differentiation `auto` is `scan`. Second derivatives by
            `torch.autograd` work with every backend.

    Returns:
        Outputs `[batch, time, heads, dim]` in the values' dtype, and the state after the last
        token (of each sequence), in float32 (float64 where scores or values are float64).

    Raises:
        UserError: an unknown backend, one that `torch.func` cannot follow, or shapes, dtypes or
            devices that do not fit.
    """
    _check(scores, values, initial_state, cu_seqlens)
    dtype = state_dtype(scores, values)
    if initial_state is not None and initial_state.maximum.dtype != dtype:
        initial_state = initial_state.to(dtype=dtype)
    device = values.device.type
    if backend not in _TRANSFORMABLE and is_transformed():
        if backend != "auto":
            raise UserError(
                f"prefix_attention: torch.func and forward-mode differentiation do not work with "
                f"backend {backend!r}; use auto, {', '.join(_TRANSFORMABLE)}"
            )
        backend = "scan"
    if backend == "auto":
        backend = _choose(scores, values, initial_state)
    else:
        _check_backend(backend, values)
    run = _BACKENDS[backend]
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):  # the state is float32 whatever is around it
            outputs, state = run(scores, values, initial_state, cu_seqlens)
    else:
        outputs, state = run(scores, values, initial_state, cu_seqlens)
    if backend == "reference":
        outputs, state = outputs.to(values.dtype), state.to(dtype=dtype)
    return outputs, state


def _choose(scores: Tensor, values: Tensor, state: PrefixState | None) -> str:
    """The fastest backend for these inputs."""
    device = values.device.type
    if device == "cpu" and is_built():
        return "cpu"
    if device == "cuda" and "triton" in _BACKENDS and state_dtype(scores, values) == torch.float32:
        return "triton"
    if scores.shape[1] <= _FEW and not needs_grad(scores, values, state):
        return "recurrent"
    return "chunked"


def _check_backend(backend: str, values: Tensor) -> None:
    """Raise UserError unless the backend is known, usable here and on the right device."""
    wanted = _DEVICES.get(backend, values.device.type)
    if backend in _BACKENDS and wanted == values.device.type and (backend != "cpu" or is_built()):
        return
    names = ", ".join(["auto", *available_backends()])
    if backend == "cpu" and not is_built():
        raise UserError(
            "prefix_attention: backend 'cpu' is not in this installation (there was no C++ "
            f"compiler), which has {names}"
        )
    if backend == "triton" and not triton_kernels.is_usable():
        raise UserError(
            "prefix_attention: backend 'triton' needs a CUDA device and the package triton; "
            f"here are {names}"
        )
    if backend not in _BACKENDS:
        raise UserError(f"prefix_attention: unknown backend {backend!r}, expected one of {names}")
    raise UserError(
        f"prefix_attention: backend {backend!r} needs tensors on {wanted}, got {values.device}"
    )


def _check(
    scores: Tensor, values: Tensor, state: PrefixState | None, cu_seqlens: Tensor | None
) -> None:
    """Raise UserError unless shapes, dtypes and devices fit."""
    if values.dim() != 4 or scores.shape != values.shape[:3]:
        raise UserError(
            "prefix_attention: scores [batch, time, heads] and values [batch, time, heads, dim] "
            f"expected, got scores {list(scores.shape)} and values {list(values.shape)}"
        )
    for name, tensor in (("scores", scores), ("values", values)):
        if tensor.dtype not in _DTYPES:
            raise UserError(f"prefix_attention: {name} must be floating point, got {tensor.dtype}")
    if scores.device != values.device:
        raise UserError(
            f"prefix_attention: scores on {scores.device} but values on {values.device}"
        )
    if cu_seqlens is not None:
        _check_packing(values, cu_seqlens)
    if state is not None:
        _check_state(values, state, cu_seqlens)


def _check_packing(values: Tensor, cu_seqlens: Tensor) -> None:
    batch, time = values.shape[:2]
    if cu_seqlens.dim() != 1 or cu_seqlens.shape[0] < 2 or batch != 1:
        raise UserError(
            "prefix_attention: cu_seqlens [sequences + 1] and a batch of 1 expected, got "
            f"cu_seqlens {list(cu_seqlens.shape)} and values {list(values.shape)}"
        )
    if cu_seqlens.dtype not in (torch.int32, torch.int64):
        raise UserError(
            f"prefix_attention: cu_seqlens must be int32 or int64, got {cu_seqlens.dtype}"
        )
    if cu_seqlens.device.type == "cpu" and not torch.compiler.is_compiling():
        check_offsets(cu_seqlens, time)


def _check_state(values: Tensor, state: PrefixState, cu_seqlens: Tensor | None) -> None:
    batch, _, heads, dim = values.shape
    if cu_seqlens is not None:
        batch = cu_seqlens.shape[0] - 1
    if state.weighted_sum.shape != (batch, heads, dim) or state.maximum.shape != (batch, heads):
        raise UserError(
            f"prefix_attention: an initial state of shape [{batch}, {heads}, {dim}] "
            f"([rows, heads, dim]) expected, got {list(state.weighted_sum.shape)}"
        )
    if state.weighted_sum.device != values.device:
        raise UserError(
            f"prefix_attention: initial state on {state.weighted_sum.device} but values on "
            f"{values.device}"
        )

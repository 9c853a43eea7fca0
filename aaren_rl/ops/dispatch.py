"""The public function: checks its arguments, picks a backend and calls it."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops.chunked import chunked
from aaren_rl.ops.recurrent import recurrent
from aaren_rl.ops.reference import reference
from aaren_rl.ops.scan import scan
from aaren_rl.ops.state import PrefixState, needs_grad, state_dtype

Backend = Callable[[Tensor, Tensor, PrefixState | None], tuple[Tensor, PrefixState]]

_BACKENDS: dict[str, Backend] = {
    "reference": reference,
    "recurrent": recurrent,
    "scan": scan,
    "chunked": chunked,
}
_FEW = 4
"""Up to so many tokens without gradients (acting), one by one is cheaper than a chunk."""
_DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)


def available_backends() -> tuple[str, ...]:
    """Names of the backends that this installation can run."""
    return tuple(_BACKENDS)


def prefix_attention(
    scores: Tensor,
    values: Tensor,
    *,
    initial_state: PrefixState | None = None,
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
        backend: `auto` (by device and length) or one of `available_backends()`.

    Returns:
        Outputs `[batch, time, heads, dim]` in the values' dtype, and the state after the last
        token, in float32 (float64 where scores or values are float64).

    Raises:
        UserError: an unknown backend, or shapes, dtypes or devices that do not fit.
    """
    _check(scores, values, initial_state)
    dtype = state_dtype(scores, values)
    if initial_state is not None and initial_state.maximum.dtype != dtype:
        initial_state = initial_state.to(dtype=dtype)
    if backend == "auto":
        backend = _choose(scores, values, initial_state)
    run = _BACKENDS.get(backend)
    if run is None:
        names = ", ".join(["auto", *available_backends()])
        raise UserError(f"prefix_attention: unknown backend {backend!r}, expected one of {names}")
    device = values.device.type
    if torch.is_autocast_enabled(device):
        with torch.autocast(device, enabled=False):  # the state is float32 whatever is around it
            outputs, state = run(scores, values, initial_state)
    else:
        outputs, state = run(scores, values, initial_state)
    if backend == "reference":
        outputs, state = outputs.to(values.dtype), state.to(dtype=dtype)
    return outputs, state


def _choose(scores: Tensor, values: Tensor, state: PrefixState | None) -> str:
    """The fastest backend for these inputs."""
    if scores.shape[1] <= _FEW and not needs_grad(scores, values, state):
        return "recurrent"
    return "chunked"


def _check(scores: Tensor, values: Tensor, state: PrefixState | None) -> None:
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
    if state is None:
        return
    batch, _, heads, dim = values.shape
    if state.weighted_sum.shape != (batch, heads, dim) or state.maximum.shape != (batch, heads):
        raise UserError(
            f"prefix_attention: an initial state of shape [{batch}, {heads}, {dim}] "
            f"([batch, heads, dim]) expected, got {list(state.weighted_sum.shape)}"
        )
    if state.weighted_sum.device != values.device:
        raise UserError(
            f"prefix_attention: initial state on {state.weighted_sum.device} but values on "
            f"{values.device}"
        )

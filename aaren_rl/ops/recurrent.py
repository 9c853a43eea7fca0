"""The recurrent form: one token after the other, as the paper's RNN cell.

Fast for acting, where a call has one to three tokens; slow for training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aaren_rl.ops.state import (
    PrefixState,
    Terms,
    divide,
    finite_floor,
    fix_gauge,
    is_transformed,
    merge_terms,
    needs_grad,
    state_dtype,
)


def token_terms(scores: Tensor, values: Tensor, dtype: torch.dtype) -> Terms:
    """The state of every single token, `(s, 1, v)`, with the gradient of s in u and w.

    The score -inf means that the token does not exist: `(-inf, 0, 0)`.
    """
    scores, values = scores.to(dtype), values.to(dtype)
    constant = scores.detach()
    absent = constant == -torch.inf
    if scores.requires_grad or is_transformed():
        shifted = torch.where(absent, -torch.inf, scores - constant.masked_fill(absent, 0.0))
        normalizer = shifted.exp()
    else:
        normalizer = absent.logical_not().to(dtype)
    return constant, normalizer, normalizer[..., None] * values


def recurrent(
    scores: Tensor, values: Tensor, state: PrefixState | None
) -> tuple[Tensor, PrefixState]:
    """Prefix attention token by token, as `chunked`; autograd traces every step."""
    batch, time, heads, dim = values.shape
    dtype = state_dtype(scores, values)
    if state is None:
        state = PrefixState.empty(batch, heads, dim, device=values.device, dtype=dtype)
    if not needs_grad(scores, values, state):
        return _recurrent_no_grad(scores.to(dtype), values, state)
    terms = fix_gauge(state.terms)
    maximum, normalizer, weighted_sum = token_terms(scores, values, dtype)
    outputs = []
    for k in range(time):
        terms = merge_terms(terms, (maximum[:, k], normalizer[:, k], weighted_sum[:, k]))
        outputs.append(divide(terms[2], terms[1]))
    stacked = torch.stack(outputs, 1) if outputs else values
    return stacked.to(values.dtype), PrefixState(*terms)


def _recurrent_no_grad(
    scores: Tensor, values: Tensor, state: PrefixState
) -> tuple[Tensor, PrefixState]:
    """The same with the fewest calls, for acting: `(s, 1, v)` is never made a tensor of its own."""
    maximum, normalizer, weighted_sum = state.terms
    smallest = torch.finfo(normalizer.dtype).tiny
    outputs = []
    for k in range(scores.shape[1]):
        score = scores[:, k]
        joined = torch.maximum(maximum, score)
        floor = finite_floor(joined)
        decay = torch.exp(maximum - floor)
        weight = torch.exp(score - floor)
        normalizer = torch.addcmul(weight, normalizer, decay)
        weighted_sum = torch.addcmul(
            weight.unsqueeze(-1) * values[:, k], weighted_sum, decay.unsqueeze(-1)
        )
        maximum = joined
        # An empty prefix has u = 0 and w = 0: any positive divisor gives its output, 0.
        outputs.append(weighted_sum / normalizer.clamp_min(smallest).unsqueeze(-1))
    stacked = torch.stack(outputs, 1) if outputs else values
    return stacked.to(values.dtype), PrefixState(maximum, normalizer, weighted_sum)

"""The definition: softmax over each prefix by a masked matrix, in float64.

Memory and time grow with time x time: for tests and small checks, not for training.
"""

from __future__ import annotations

import torch
from torch import Tensor

from aaren_rl.ops.state import PrefixState, divide, finite_floor, fix_gauge


def reference(
    scores: Tensor, values: Tensor, state: PrefixState | None
) -> tuple[Tensor, PrefixState]:
    """`o_k = sum_{i<=k} exp(s_i) v_i / sum_{i<=k} exp(s_i)`, as `chunked`; all in float64."""
    batch, time, heads = scores.shape
    s = scores.double().transpose(1, 2)
    v = values.double().transpose(1, 2)
    if state is None:
        state = PrefixState.empty(batch, heads, v.shape[-1], device=v.device, dtype=v.dtype)
    m0, u0, w0 = (term.double() for term in state.terms)
    if time == 0:
        return v.transpose(1, 2), PrefixState(*fix_gauge((m0, u0, w0)))

    running = torch.maximum(s.cummax(-1).values, m0[..., None]).detach()
    floor = finite_floor(running)
    future = torch.ones(time, time, dtype=torch.bool, device=s.device).triu(1)
    exponent = (s[..., None, :] - floor[..., None]).masked_fill(future, -torch.inf)
    weights = exponent.exp()
    weight0 = torch.exp(m0[..., None] - floor)
    normalizer = weights.sum(-1) + weight0 * u0[..., None]
    weighted_sum = weights @ v + weight0[..., None] * w0[..., None, :]
    outputs = divide(weighted_sum, normalizer)
    # Copies: a view would keep the whole sequence alive behind a small state.
    last = (running[..., -1], normalizer[..., -1], weighted_sum[..., -1, :])
    final = PrefixState(*(term.clone() for term in last))
    return outputs.transpose(1, 2), final

"""The fast exact form in plain torch: matrix products within chunks, a state between them.

Let `m_k` be the running maximum of the scores and `u_k`, `w_k` the sums relative to it. Within a
chunk the weights `P[k, i] = exp(s_i - m_k) / u_k` (i <= k) make a small triangular matrix, and

    o_k = sum_i P[k, i] v_i + exp(m_b - m_k) / u_k * w_b

with `b` the last token of the chunk before. The states at the chunks' ends obey the same law one
level up, with `(m_b, u, w)` of a whole chunk in place of `(s_i, 1, v_i)`, so they are found
by the same chunked product, recursively. Backward, with g the gradient to o,

    dv_i = sum_{k>=i} P[k, i] g_k;     ds_i = v_i . dv_i - sum_{k>=i} P[k, i] (o_k . g_k)

which are the transposed products with the carry running from the end. No exponent is ever
positive, `L = m + log u` is only ever kept as the pair `(m, u)` (in float32 a single number would
be off by 5e-4 at scores near 1e4), nothing is of size time x time, and only scores, values,
outputs, m and u are kept for the backward pass.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from aaren_rl.ops.scan import differentiable_gradients
from aaren_rl.ops.state import PrefixState, Terms, finite_floor, state_dtype

Carry = tuple[Tensor, Tensor]
"""Gradients carried over a boundary: to `w` `[rows, dim]` and to `-u` `[rows]`."""

CHUNK = 32
"""Tokens in a chunk. Sequences up to this length are one chunk and carry nothing."""


def chunked(
    scores: Tensor, values: Tensor, state: PrefixState | None
) -> tuple[Tensor, PrefixState]:
    """Prefix attention by chunks, exact, linear in time and memory; as `prefix_attention`.

    Args:
        scores: `[batch, time, heads]`, any float dtype.
        values: `[batch, time, heads, dim]`.
        state: the tokens before the first one.
    """
    terms = (None, None, None) if state is None else state.terms
    outputs, *final = _Chunked.apply(scores, values, *terms)
    return outputs, PrefixState(*final)


class _Chunked(torch.autograd.Function):
    """`(scores, values, m0, u0, w0) -> (outputs, m, u, w)`; `m` carries no gradient."""

    @staticmethod
    def forward(
        ctx: Any,
        scores: Tensor,
        values: Tensor,
        m0: Tensor | None,
        u0: Tensor | None,
        w0: Tensor | None,
    ) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dtype = state_dtype(scores, values)
        s, v = _rows(scores, dtype), _rows(values, dtype)
        initial = None
        if m0 is not None and u0 is not None and w0 is not None:
            initial = (m0.flatten(), u0.flatten(), w0.flatten(0, 1))
        o, m, u, final = _forward(s, v, initial)
        batch, _, heads = scores.shape
        outputs = _unrows(o, batch, heads).to(values.dtype)
        ctx.save_for_backward(scores, values, outputs, m, u, m0, u0, w0)
        final_m, final_u, final_w = (t.unflatten(0, (batch, heads)) for t in final)
        ctx.mark_non_differentiable(final_m)
        ctx.set_materialize_grads(False)
        return outputs, final_m, final_u, final_w

    @staticmethod
    def backward(
        ctx: Any, d_outputs: Tensor | None, _: None, du: Tensor | None, dw: Tensor | None
    ) -> tuple[Tensor | None, ...]:
        scores, values, outputs, m, u, m0, u0, w0 = ctx.saved_tensors
        if torch.is_grad_enabled():
            inputs = (scores, values, m0, u0, w0)
            return differentiable_gradients(inputs, None, (d_outputs, du, dw))
        batch, _, heads = scores.shape
        s, v = _rows(scores, m.dtype), _rows(values, m.dtype)
        o = _rows(outputs, m.dtype)
        g = torch.zeros_like(o) if d_outputs is None else _rows(d_outputs, m.dtype)
        carry = (
            v.new_zeros(v.shape[0], v.shape[2]) if dw is None else dw.flatten(0, 1),
            v.new_zeros(v.shape[0]) if du is None else -du.flatten(),
        )
        before = v.new_full(v.shape[:1], -torch.inf) if m0 is None else m0.flatten()
        with torch.autocast(v.device.type, enabled=False):  # backward may run within autocast
            ds, dv, carry = _backward(s, v, o, m, u, g, before, carry)
        d_scores = _unrows(ds, batch, heads).to(scores.dtype)
        d_values = _unrows(dv, batch, heads).to(values.dtype)
        if m0 is None:
            return d_scores, d_values, None, None, None
        du0 = -carry[1].unflatten(0, (batch, heads))
        dw0 = carry[0].unflatten(0, (batch, heads))
        dm0 = u0 * du0 + (w0 * dw0).sum(-1)
        return d_scores, d_values, dm0, du0, dw0


def _rows(tensor: Tensor, dtype: torch.dtype) -> Tensor:
    """`[batch, time, heads, ...] -> [batch * heads, time, ...]`."""
    return tensor.to(dtype).transpose(1, 2).flatten(0, 1)


def _unrows(tensor: Tensor, batch: int, heads: int) -> Tensor:
    """`[batch * heads, time, ...] -> [batch, time, heads, ...]`."""
    return tensor.unflatten(0, (batch, heads)).transpose(1, 2)


def _forward(s: Tensor, v: Tensor, initial: Terms | None) -> tuple[Tensor, Tensor, Tensor, Terms]:
    """Outputs `[rows, time, dim]`, m and u `[rows, time]` of all prefixes, and the final state.

    `s` is `[rows, time]`, `v` `[rows, time, dim]`, a state `(m [rows], u [rows], w [rows, dim])`.
    """
    rows, time, dim = v.shape
    if time == 0:
        if initial is None:
            initial = (s.new_full((rows,), -torch.inf), s.new_zeros(rows), v.new_zeros(rows, dim))
        return v, s, s, (initial[0].clone(), initial[1].clone(), initial[2].clone())
    m = s.cummax(-1).values
    if initial is not None:
        m = torch.maximum(m, initial[0][:, None])
    u, w = _scan(s, m, None, v, initial)
    final = (m[:, -1].clone(), u[:, -1].clone(), w[:, -1].clone())
    # An empty prefix has u = 0 and w = 0: any positive divisor gives its output, 0.
    u = torch.where(u == 0, 1.0, u)
    return w.div_(u[..., None]), m, u, final


def _backward(
    s: Tensor, v: Tensor, o: Tensor, m: Tensor, u: Tensor, g: Tensor, before: Tensor, carry: Carry
) -> tuple[Tensor, Tensor, Carry]:
    """Gradients to scores `[rows, time]`, values `[rows, time, dim]` and the initial state.

    `o` and `g` are the outputs and their gradient, `m` and `u` as `_forward` returned them,
    `before` `[rows]` is the initial state's m, and `carry` the gradients to the final state.
    """
    if s.shape[1] == 0:
        return s, v, carry
    dot = (o * g).sum(-1)
    dv, c, carry = _scan_reverse(s, m, u.reciprocal(), g, dot, before, carry)
    return (v * dv).sum(-1).sub_(c), dv, carry


def _pieces(time: int) -> list[tuple[slice, int]]:
    """Cut the time axis into `(tokens, chunk)`: whole chunks first, then what is left."""
    if time <= CHUNK:
        return [(slice(0, time), time)]
    whole = time - time % CHUNK
    rest = [(slice(whole, time), time - whole)] if whole < time else []
    return [(slice(0, whole), CHUNK), *rest]


def _triangle(s: Tensor, m: Tensor) -> Tensor:
    """`E[k, i] = exp(s_i - m_k)` for i <= k and 0 above: `[n, chunk] -> [n, chunk, chunk]`."""
    # Above the diagonal the exponential may be infinite; tril_ overwrites it.
    return (s[:, None, :] - finite_floor(m)[:, :, None]).exp_().tril_()


def _decay(m_from: Tensor, m_to: Tensor) -> Tensor:
    """`exp(m_from - m_to)` for `m_from <= m_to`; 0 where `m_from` is -inf."""
    return torch.exp(m_from - finite_floor(m_to))


def _scan(
    s: Tensor, m: Tensor, u: Tensor | None, w: Tensor, initial: Terms | None
) -> tuple[Tensor, Tensor]:
    """`sum_{i<=k} exp(s_i - m_k) u_i` `[rows, n]` and the same of `w` `[rows, n, dim]`.

    `m` is non-decreasing with `m_k >= s_i` for i <= k; `u` may be None for ones. The m of the
    state `initial`, before the first token, is at most `m_0`.
    """
    pieces = _pieces(s.shape[1])
    if len(pieces) == 1:
        return _scan_piece(s, m, u, w, initial, pieces[0][1])
    prefix_u, prefix_w = [], []
    for tokens, chunk in pieces:
        token_u = None if u is None else u[:, tokens]
        piece = _scan_piece(s[:, tokens], m[:, tokens], token_u, w[:, tokens], initial, chunk)
        initial = (m[:, tokens][:, -1], piece[0][:, -1], piece[1][:, -1])
        prefix_u.append(piece[0])
        prefix_w.append(piece[1])
    return torch.cat(prefix_u, 1), torch.cat(prefix_w, 1)


def _scan_piece(
    s: Tensor, m: Tensor, u: Tensor | None, w: Tensor, initial: Terms | None, chunk: int
) -> tuple[Tensor, Tensor]:
    """`_scan` of a whole number of chunks."""
    rows, n, dim = w.shape
    count = n // chunk
    m_chunk = m.reshape(-1, chunk)
    triangle = _triangle(s.reshape(-1, chunk), m_chunk)
    if u is None:
        prefix_u = triangle.sum(-1)
    else:
        prefix_u = torch.bmm(triangle, u.reshape(-1, chunk, 1)).squeeze(-1)
    prefix_w = torch.bmm(triangle, w.reshape(-1, chunk, dim))
    if count > 1:
        initial = _carry_in(m_chunk, prefix_u, prefix_w, initial, rows)
    if initial is not None:
        decay = _decay(initial[0][:, None], m_chunk)
        prefix_u.addcmul_(decay, initial[1][:, None])
        prefix_w.addcmul_(decay[..., None], initial[2][:, None, :])
    return prefix_u.view(rows, n), prefix_w.view(rows, n, dim)


def _carry_in(m: Tensor, u: Tensor, w: Tensor, initial: Terms | None, rows: int) -> Terms:
    """The state before each chunk, `(m [rows * count], u, w [rows * count, dim])`.

    One level of the recursion, from the chunks' own sums: m and u are `[rows * count, chunk]`.
    """
    ends = [t[:, -1].unflatten(0, (rows, -1))[:, :-1] for t in (m, u, w)]
    if initial is None:
        zeros = [torch.zeros_like(tensor[:, :1]) for tensor in ends[1:]]
        first = [torch.full_like(ends[0][:, :1], -torch.inf), *zeros]
    else:
        first = [t[:, None] for t in initial]
    m_before, u_own, w_own = (torch.cat(pair, 1) for pair in zip(first, ends, strict=True))
    u_before, w_before = _scan(m_before, m_before, u_own, w_own, None)
    return m_before.flatten(), u_before.flatten(), w_before.flatten(0, 1)


def _scan_reverse(
    s: Tensor, m: Tensor, scale: Tensor | None, g: Tensor, c: Tensor, before: Tensor, carry: Carry
) -> tuple[Tensor, Tensor, Carry]:
    """The transpose of `_scan`: sums over all suffixes.

    `sum_{k>=i} exp(s_i - m_k) scale_k g_k + exp(s_i - m_last) carry` `[rows, n, dim]`, the same of
    c `[rows, n]`, and the carry to the tokens before, relative to the maximum `before` `[rows]`.
    """
    pieces = _pieces(s.shape[1])
    if len(pieces) == 1:
        return _reverse_piece(s, m, scale, g, c, before, carry, pieces[0][1])
    suffix_g, suffix_c = [], []
    for tokens, chunk in reversed(pieces):
        first = before if tokens.start == 0 else m[:, tokens.start - 1]
        token_scale = None if scale is None else scale[:, tokens]
        piece = (s[:, tokens], m[:, tokens], token_scale, g[:, tokens], c[:, tokens])
        piece_g, piece_c, carry = _reverse_piece(*piece, first, carry, chunk)
        suffix_g.append(piece_g)
        suffix_c.append(piece_c)
    return torch.cat(suffix_g[::-1], 1), torch.cat(suffix_c[::-1], 1), carry


def _reverse_piece(
    s: Tensor,
    m: Tensor,
    scale: Tensor | None,
    g: Tensor,
    c: Tensor,
    before: Tensor,
    carry: Carry,
    chunk: int,
) -> tuple[Tensor, Tensor, Carry]:
    """`_scan_reverse` of a whole number of chunks."""
    rows, n, dim = g.shape
    s_chunk, m_chunk = s.reshape(-1, chunk), m.reshape(-1, chunk)
    g_chunk, c_chunk = g.reshape(-1, chunk, dim), c.reshape(-1, chunk, 1)
    triangle = _triangle(s_chunk, m_chunk)
    m_end = m_chunk[:, -1].view(rows, -1)
    m_before = torch.cat([before[:, None], m_end[:, :-1]], 1)
    to_before = _decay(m_before.flatten()[:, None], m_chunk)
    if scale is not None:
        scale = scale.reshape(-1, chunk)
        triangle.mul_(scale[..., None])
        to_before.mul_(scale)
    suffix_g = torch.bmm(triangle.mT, g_chunk)
    suffix_c = torch.bmm(triangle.mT, c_chunk).squeeze(-1)
    out_g = torch.bmm(to_before[:, None], g_chunk).view(rows, -1, dim)
    out_c = torch.bmm(to_before[:, None], c_chunk).view(rows, -1)
    # What reaches a chunk from behind: the later chunks' sums, and the carry at the very end.
    in_g = torch.cat([out_g[:, 1:], carry[0][:, None]], 1)
    in_c = torch.cat([out_c[:, 1:], carry[1][:, None]], 1)
    if n > chunk:
        nothing = (torch.zeros_like(carry[0]), torch.zeros_like(carry[1]))
        in_g, in_c, _ = _scan_reverse(m_end, m_end, None, in_g, in_c, before, nothing)
    decay = _decay(s_chunk, m_chunk[:, -1:])
    suffix_g.addcmul_(decay[..., None], in_g.reshape(-1, 1, dim))
    suffix_c.addcmul_(decay, in_c.reshape(-1, 1))
    first = _decay(before, m_end[:, 0])
    carry = (out_g[:, 0] + first[:, None] * in_g[:, 0], out_c[:, 0] + first * in_c[:, 0])
    return suffix_g.view(rows, n, dim), suffix_c.view(rows, n), carry

"""Triton kernels of prefix attention: one pass over the data forward, one backward.

A program owns one sequence and head, `BLOCK_DIM` dims and, where there are too few rows to fill
the chip, one of several segments of the time axis. It loops over blocks of `BLOCK_TIME` tokens
with the state (m, u, w) in registers. Within a block the weights `exp(s_i - m_k)`, i <= k, are a
small triangular matrix: a matrix product with the values gives the block's own sums, and the
state before the block is added with its decay. All sums are float32 and the weights lose no
precision, so the state's error does not depend on the dtype of the values.

Where the time axis is cut into segments, a first pass over the values finds each segment's own
state, and every program of the second pass joins the states before its own: fixed order, no
atomics, so results do not vary from run to run.

The formulas are those of `aaren_rl.ops.chunked`. Scores and states are float32. Nothing is padded:
tails are masked. `offsets` is null-like (any pointer) unless `packed` is 1.
"""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

from aaren_rl.ops.triton.blocks import HIGHEST, finite, inverse_of, locate, maximum, product


@triton.jit
def segment_states(
    scores,
    values,
    offsets,
    segment_m,
    segment_u,
    segment_w,
    packed,
    heads,
    dim,
    time,
    segments,
    value_batch,
    value_time,
    value_head,
    BLOCK_TIME: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Forward, first pass: the state of each segment's own tokens, `[row, segment]`."""
    row, batch, head, begin, end, length, segment, block = locate(
        offsets, packed, heads, dim, time, segments, BLOCK_TIME, BLOCK_DIM
    )
    dims = block * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    in_dims = dims < dim
    first = begin + segment * length
    last = tl.minimum(first + length, end)
    m = tl.full([], float("-inf"), tl.float32)
    u = tl.zeros([], tl.float32)
    w = tl.zeros([BLOCK_DIM], tl.float32)
    ticks = tl.arange(0, BLOCK_TIME)
    score_row = scores + batch * time * heads + head
    value_row = values + batch * value_batch + head * value_head
    value_tile = ticks[:, None] * value_time + dims[None, :]
    for start in range(first, last, BLOCK_TIME):
        in_time = ticks < last - start
        inside = in_time[:, None] & in_dims[None, :]
        s = tl.load(score_row + start * heads + ticks * heads, mask=in_time, other=float("-inf"))
        v = tl.load(value_row + start * value_time + value_tile, mask=inside, other=0.0)
        joined = tl.maximum(m, tl.max(s, 0))
        weight = tl.exp(s - finite(joined))
        decay = tl.exp(m - finite(joined))
        u = u * decay + tl.sum(weight, 0)
        w = w * decay + tl.sum(weight[:, None] * v.to(tl.float32), 0)
        m = joined
    slot = row * segments + segment
    tl.store(segment_w + slot * dim + dims, w, mask=in_dims)
    if block == 0:
        tl.store(segment_m + slot, m)
        tl.store(segment_u + slot, u)


@triton.jit
def forward(
    scores,
    values,
    offsets,
    m0,
    u0,
    w0,
    segment_m,
    segment_u,
    segment_w,
    outputs,
    m_all,
    u_all,
    m_end,
    u_end,
    w_end,
    packed,
    heads,
    dim,
    time,
    segments,
    value_batch,
    value_time,
    value_head,
    BLOCK_TIME: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Forward: outputs, m and u of every prefix, and the final state of each row."""
    row, batch, head, begin, end, length, segment, block = locate(
        offsets, packed, heads, dim, time, segments, BLOCK_TIME, BLOCK_DIM
    )
    dims = block * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    in_dims = dims < dim
    m = tl.load(m0 + row)
    u = tl.load(u0 + row)
    w = tl.load(w0 + row * dim + dims, mask=in_dims, other=0.0)
    for earlier in range(0, segment):
        slot = row * segments + earlier
        other_m = tl.load(segment_m + slot)
        joined = tl.maximum(m, other_m)
        decay = tl.exp(m - finite(joined))
        other_decay = tl.exp(other_m - finite(joined))
        u = u * decay + tl.load(segment_u + slot) * other_decay
        other_w = tl.load(segment_w + slot * dim + dims, mask=in_dims, other=0.0)
        w = w * decay + other_w * other_decay
        m = joined

    ticks = tl.arange(0, BLOCK_TIME)
    past = ticks[None, :] <= ticks[:, None]
    first = begin + segment * length
    last = tl.minimum(first + length, end)
    score_row = scores + batch * time * heads + head
    value_row = values + batch * value_batch + head * value_head
    value_tile = ticks[:, None] * value_time + dims[None, :]
    output_row = outputs + (batch * time * heads + head) * dim
    output_tile = ticks[:, None] * (heads * dim) + dims[None, :]
    line = (batch * heads + head) * time
    for start in range(first, last, BLOCK_TIME):
        in_time = ticks < last - start
        inside = in_time[:, None] & in_dims[None, :]
        s = tl.load(score_row + start * heads + ticks * heads, mask=in_time, other=float("-inf"))
        v = tl.load(value_row + start * value_time + value_tile, mask=inside, other=0.0)
        # The block's own sums, relative to its own running maximum.
        own_m = tl.associative_scan(s, 0, maximum)
        triangle = tl.where(past, tl.exp(s[None, :] - finite(own_m)[:, None]), 0.0)
        own_u = tl.sum(triangle, 1)
        own_w = product(triangle, v)
        # Joined to the state before the block.
        m_k = tl.maximum(own_m, m)
        own_decay = tl.exp(own_m - finite(m_k))
        decay = tl.exp(m - finite(m_k))
        u_k = own_u * own_decay + u * decay
        inverse = inverse_of(u_k)
        o = own_w * (own_decay * inverse)[:, None] + w[None, :] * (decay * inverse)[:, None]
        tl.store(
            output_row + start * heads * dim + output_tile,
            o.to(outputs.dtype.element_ty),
            mask=inside,
        )
        if block == 0:
            tl.store(m_all + line + start + ticks, m_k, mask=in_time)
            tl.store(u_all + line + start + ticks, u_k, mask=in_time)
        joined = tl.maximum(m, tl.max(s, 0))
        weight = tl.exp(s - finite(joined))
        decay_end = tl.exp(m - finite(joined))
        u = u * decay_end + tl.sum(weight, 0)
        w = w * decay_end + tl.sum(weight[:, None] * v.to(tl.float32), 0)
        m = joined
    if segment == segments - 1:
        tl.store(w_end + row * dim + dims, w, mask=in_dims)
        if block == 0:
            tl.store(m_end + row, m)
            tl.store(u_end + row, u)


@triton.jit
def segment_gradients(
    values,
    offsets,
    m0,
    outputs,
    m_all,
    u_all,
    d_outputs,
    segment_r,
    segment_c,
    packed,
    heads,
    dim,
    time,
    segments,
    d_output_batch,
    d_output_time,
    d_output_head,
    BLOCK_TIME: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Backward, first pass: what each segment sends to the tokens before it.

    r `[row, segment, dim]` and c `[row, segment, dim block]`, relative to the m just before it.
    """
    row, batch, head, begin, end, length, segment, block = locate(
        offsets, packed, heads, dim, time, segments, BLOCK_TIME, BLOCK_DIM
    )
    dims = block * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    in_dims = dims < dim
    first = begin + segment * length
    last = tl.minimum(first + length, end)
    line = (batch * heads + head) * time
    m_before = tl.load(m0 + row)
    if (first > begin) & (first < end):
        m_before = tl.load(m_all + line + first - 1)
    r = tl.zeros([BLOCK_DIM], tl.float32)
    c = tl.zeros([], tl.float32)
    ticks = tl.arange(0, BLOCK_TIME)
    gradient_row = d_outputs + batch * d_output_batch + head * d_output_head
    gradient_tile = ticks[:, None] * d_output_time + dims[None, :]
    output_row = outputs + (batch * time * heads + head) * dim
    output_tile = ticks[:, None] * (heads * dim) + dims[None, :]
    for start in range(first, last, BLOCK_TIME):
        in_time = ticks < last - start
        inside = in_time[:, None] & in_dims[None, :]
        m = tl.load(m_all + line + start + ticks, mask=in_time, other=HIGHEST)
        u = tl.load(u_all + line + start + ticks, mask=in_time, other=0.0)
        g = tl.load(gradient_row + start * d_output_time + gradient_tile, mask=inside, other=0.0)
        o = tl.load(output_row + start * heads * dim + output_tile, mask=inside, other=0.0)
        factor = tl.exp(m_before - finite(m)) * inverse_of(u)
        r += tl.sum(factor[:, None] * g.to(tl.float32), 0)
        c += tl.sum(factor * tl.sum(o.to(tl.float32) * g.to(tl.float32), 1), 0)
    slot = row * segments + segment
    tl.store(segment_r + slot * dim + dims, r, mask=in_dims)
    tl.store(segment_c + slot * tl.cdiv(dim, BLOCK_DIM) + block, c)


@triton.jit
def backward(
    scores,
    values,
    offsets,
    m0,
    outputs,
    m_all,
    u_all,
    d_outputs,
    du_end,
    dw_end,
    segment_r,
    segment_c,
    d_scores,
    d_values,
    du0,
    dw0,
    packed,
    batches,
    rows,
    heads,
    dim,
    time,
    segments,
    value_batch,
    value_time,
    value_head,
    d_output_batch,
    d_output_time,
    d_output_head,
    BLOCK_TIME: tl.constexpr,
    BLOCK_DIM: tl.constexpr,
):
    """Backward: gradients to values, to the initial state, and each dim block's share of scores.

    d_scores `[dim blocks, batch, time, heads]` and du0 `[dim blocks, rows]` are to be summed over
    the first axis.
    """
    row, batch, head, begin, end, length, segment, block = locate(
        offsets, packed, heads, dim, time, segments, BLOCK_TIME, BLOCK_DIM
    )
    blocks = tl.cdiv(dim, BLOCK_DIM)
    dims = block * BLOCK_DIM + tl.arange(0, BLOCK_DIM)
    in_dims = dims < dim
    first = begin + segment * length
    last = tl.minimum(first + length, end)
    line = (batch * heads + head) * time

    # What reaches the segment's last token from behind, relative to that token's m.
    r = tl.load(dw_end + row * dim + dims, mask=in_dims, other=0.0)
    c = tl.where(block == 0, -tl.load(du_end + row), 0.0)
    if first < last:
        m_last = tl.load(m_all + line + last - 1)
        decay = tl.exp(m_last - finite(tl.load(m_all + line + end - 1)))
        r = r * decay
        c = c * decay
        for later in range(segment + 1, segments):
            later_first = begin + later * length
            if later_first < end:
                slot = row * segments + later
                decay = tl.exp(m_last - finite(tl.load(m_all + line + later_first - 1)))
                r += decay * tl.load(segment_r + slot * dim + dims, mask=in_dims, other=0.0)
                c += decay * tl.load(segment_c + slot * blocks + block)

    ticks = tl.arange(0, BLOCK_TIME)
    future = ticks[None, :] >= ticks[:, None]
    score_row = scores + batch * time * heads + head
    share_row = d_scores + (block.to(tl.int64) * batches + batch) * time * heads + head
    value_row = values + batch * value_batch + head * value_head
    value_tile = ticks[:, None] * value_time + dims[None, :]
    gradient_row = d_outputs + batch * d_output_batch + head * d_output_head
    gradient_tile = ticks[:, None] * d_output_time + dims[None, :]
    output_row = (batch * time * heads + head) * dim
    output_tile = ticks[:, None] * (heads * dim) + dims[None, :]
    count = tl.cdiv(tl.maximum(last - first, 0), BLOCK_TIME)
    for i in range(0, count):
        start = first + (count - 1 - i) * BLOCK_TIME
        in_time = ticks < last - start
        inside = in_time[:, None] & in_dims[None, :]
        spot = output_row + start * heads * dim
        s = tl.load(score_row + start * heads + ticks * heads, mask=in_time, other=float("-inf"))
        m = tl.load(m_all + line + start + ticks, mask=in_time, other=HIGHEST)
        u = tl.load(u_all + line + start + ticks, mask=in_time, other=0.0)
        g = tl.load(gradient_row + start * d_output_time + gradient_tile, mask=inside, other=0.0)
        o = tl.load(outputs + spot + output_tile, mask=inside, other=0.0)
        v = tl.load(value_row + start * value_time + value_tile, mask=inside, other=0.0)
        inverse = inverse_of(u)
        floor = finite(m)
        m_last = tl.load(m_all + line + tl.minimum(start + BLOCK_TIME, last) - 1)
        # P[i, k] = exp(s_i - m_k) / u_k for k >= i: the transpose of the forward triangle.
        weights = tl.exp(s[:, None] - floor[None, :]) * inverse[None, :]
        triangle = tl.where(future, weights, 0.0)
        dot = tl.sum(o.to(tl.float32) * g.to(tl.float32), 1)
        decay = tl.exp(s - finite(m_last))
        dv = product(triangle, g) + decay[:, None] * r[None, :]
        ds = tl.sum(v.to(tl.float32) * dv, 1)
        ds -= tl.sum(triangle * dot[None, :], 1) + decay * c
        tl.store(d_values + spot + output_tile, dv.to(d_values.dtype.element_ty), mask=inside)
        tl.store(share_row + start * heads + ticks * heads, ds, mask=in_time)

        m_before = tl.load(m0 + row)
        if start > begin:
            m_before = tl.load(m_all + line + start - 1)
        factor = tl.exp(m_before - floor) * inverse
        decay_before = tl.exp(m_before - finite(m_last))
        r = r * decay_before + tl.sum(factor[:, None] * g.to(tl.float32), 0)
        c = c * decay_before + tl.sum(factor * dot, 0)
    if segment == 0:
        tl.store(dw0 + row * dim + dims, r, mask=in_dims)
        tl.store(du0 + block * rows + row, -c)

"""Shared parts of the Triton kernels: a program's place in the work, and arithmetic in a block."""

# mypy: disable-error-code="no-untyped-def"

from __future__ import annotations

import triton
import triton.language as tl

HIGHEST = tl.constexpr(3.4028234663852886e38)
LOWEST = tl.constexpr(-3.4028234663852886e38)
INTERPRETED = tl.constexpr(bool(triton.knobs.runtime.interpret))


@triton.jit
def maximum(a, b):
    """The combine function of a running maximum."""
    return tl.maximum(a, b)


@triton.jit
def finite(m):
    """-inf becomes the lowest finite number, so that no difference is NaN."""
    return tl.maximum(m, LOWEST)


@triton.jit
def inverse_of(u):
    """1 / u, and 0 for the empty set, whose u is 0."""
    return tl.where(u == 0.0, 0.0, 1.0 / tl.where(u == 0.0, 1.0, u))


@triton.jit
def product(weights, x):
    """`weights @ x` on the tensor cores, to float32's precision whatever the dtype of x.

    16-bit x are exact; the float32 weights are split into two numbers of x's dtype.
    """
    if x.dtype == tl.float32:
        return tl.dot(weights, x, input_precision="tf32x3")
    high = weights.to(x.dtype)
    low = (weights - high.to(tl.float32)).to(x.dtype)
    if INTERPRETED:  # Triton's interpreter would multiply the bits of bfloat16
        exact = x.to(tl.float32)
        return tl.dot(high.to(tl.float32), exact) + tl.dot(low.to(tl.float32), exact)
    return tl.dot(low, x, acc=tl.dot(high, x))


@triton.jit
def locate(offsets, packed, heads, dim, time, segments, BLOCK_TIME, BLOCK_DIM):
    """Decode the program's index.

    Returns:
        sequence and head as `row`, batch, head, first and last+1 token of the sequence, tokens in
        a segment, the segment, and the block of dims.
    """
    index = tl.program_id(0)
    blocks = tl.cdiv(dim, BLOCK_DIM)
    block = index % blocks
    index = index // blocks
    segment = index % segments
    row = (index // segments).to(tl.int64)
    head = row % heads
    sequence = row // heads
    batch = sequence
    begin = row * 0
    end = begin + time
    if packed != 0:
        # Clamped: whatever the offsets hold, no access is out of bounds.
        begin = tl.minimum(tl.maximum(tl.load(offsets + sequence).to(tl.int64), 0), time)
        end = tl.minimum(tl.maximum(tl.load(offsets + sequence + 1).to(tl.int64), begin), time)
        batch = row * 0
    length = tl.cdiv(tl.cdiv(end - begin, segments), BLOCK_TIME) * BLOCK_TIME
    return row, batch, head, begin, end, length, segment, block

"""The Triton kernels as functions of tensors."""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops.packed import check_offsets, unit_stride
from aaren_rl.ops.triton import kernels

WARPS = 4
MAX_SEGMENTS = 32
MIN_SEGMENT = 256
"""Least tokens of a segment: shorter ones cost more than they save."""


def forward(
    scores: Tensor,
    values: Tensor,
    m0: Tensor | None,
    u0: Tensor | None,
    w0: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs and states; see `aaren_rl.ops.fused.register`.

    Raises:
        UserError: float64 inputs.
    """
    if torch.float64 in (scores.dtype, values.dtype):
        raise UserError(
            "prefix_attention: backend 'triton' takes float16, bfloat16 and float32, got float64; "
            "backend 'chunked' takes float64 on any device"
        )
    plan = _Plan(scores, values, cu_seqlens)
    batch, time, heads, dim = values.shape
    state = (plan.rows, heads)
    if m0 is None or u0 is None or w0 is None:
        m0 = plan.new(*state).fill_(-torch.inf)
        u0, w0 = plan.new(*state).zero_(), plan.new(*state, dim).zero_()
    initial = (m0.contiguous(), u0.contiguous(), w0.contiguous())
    outputs = torch.empty((batch, time, heads, dim), dtype=values.dtype, device=values.device)
    m, u = plan.new(batch, heads, time), plan.new(batch, heads, time)
    m_end, u_end, w_end = plan.new(*state), plan.new(*state), plan.new(*state, dim)
    pieces = plan.segment_buffers()
    inputs = (plan.scores, plan.values, plan.offsets)
    if plan.segments > 1:
        plan.launch(kernels.segment_states, *inputs, *pieces, strides=[plan.values])
    results = (outputs, m, u, m_end, u_end, w_end)
    plan.launch(kernels.forward, *inputs, *initial, *pieces, *results, strides=[plan.values])
    return results


def backward(
    d_outputs: Tensor | None,
    du_end: Tensor | None,
    dw_end: Tensor | None,
    scores: Tensor,
    values: Tensor,
    outputs: Tensor,
    m: Tensor,
    u: Tensor,
    m0: Tensor | None,
    u0: Tensor | None,
    w0: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Gradients to scores, values and the initial state; see `aaren_rl.ops.fused.register`."""
    plan = _Plan(scores, values, cu_seqlens)
    batch, time, heads, dim = values.shape
    rows, blocks = plan.rows, plan.blocks
    o = outputs.contiguous()
    g = o.new_zeros(o.shape) if d_outputs is None else unit_stride(d_outputs)
    m_before = plan.new(rows, heads).fill_(-torch.inf) if m0 is None else m0.contiguous()
    du = plan.new(rows, heads).zero_() if du_end is None else du_end.contiguous()
    dw = plan.new(rows, heads, dim).zero_() if dw_end is None else dw_end.contiguous()
    d_scores = plan.new(blocks, batch, time, heads)
    d_values = torch.empty((batch, time, heads, dim), dtype=values.dtype, device=values.device)
    du0, dw0 = plan.new(blocks, rows, heads), plan.new(rows, heads, dim)
    segment_r = plan.new(rows * heads, plan.segments, dim)
    segment_c = plan.new(rows * heads, plan.segments, blocks)
    saved = (m_before, o, m, u, g)
    if plan.segments > 1:
        buffers = (segment_r, segment_c)
        plan.launch(
            kernels.segment_gradients, plan.values, plan.offsets, *saved, *buffers, strides=[g]
        )
    results = (segment_r, segment_c, d_scores, d_values, du0, dw0)
    inputs = (plan.scores, plan.values, plan.offsets)
    plan.launch(kernels.backward, *inputs, *saved, du, dw, *results, strides=[plan.values, g])

    d_scores = (d_scores[0] if blocks == 1 else d_scores.sum(0)).to(scores.dtype)
    if m0 is None or u0 is None or w0 is None:
        return d_scores, d_values, m.new_empty(0), m.new_empty(0), m.new_empty(0)
    du0 = du0[0] if blocks == 1 else du0.sum(0)
    return d_scores, d_values, u0 * du0 + (w0 * dw0).sum(-1), du0, dw0


class _Plan:
    """Inputs as the kernels take them, and how the work is cut."""

    def __init__(self, scores: Tensor, values: Tensor, cu_seqlens: Tensor | None) -> None:
        """Choose block sizes by the shapes, and segments by the number of programs."""
        self.device = values.device
        self.scores = scores.to(torch.float32).contiguous()
        self.values = unit_stride(values)
        batch, time, heads, dim = values.shape
        self.rows = batch
        self.packed = cu_seqlens is not None
        if cu_seqlens is None:
            self.offsets = self.scores  # never read
        else:
            if cu_seqlens.device.type == "cpu":
                check_offsets(cu_seqlens, time)
            self.offsets = cu_seqlens.to(self.device, torch.int64, non_blocking=True)
            self.rows = cu_seqlens.shape[0] - 1
        self.block_time, self.block_dim = block_shape(values.dtype, dim)
        self.blocks = max(1, -(-dim // self.block_dim))
        programs = self.rows * heads * self.blocks
        self.segments = count_segments(programs, time, _processors(self.device))

    def new(self, *shape: int) -> Tensor:
        """An uninitialised float32 tensor."""
        return torch.empty(shape, dtype=torch.float32, device=self.device)

    def segment_buffers(self) -> tuple[Tensor, Tensor, Tensor]:
        """m, u `[rows * heads, segments]` and w `[rows * heads, segments, dim]`."""
        _, _, heads, dim = self.values.shape
        shape = (self.rows * heads, self.segments)
        return self.new(*shape), self.new(*shape), self.new(*shape, dim)

    def launch(self, kernel: Any, *tensors: Tensor, strides: list[Tensor]) -> None:
        """Run one program for each row, segment and block of dims."""
        batch, time, heads, dim = self.values.shape
        programs = self.rows * heads * self.segments * self.blocks
        if programs == 0:
            return
        numbers = [int(self.packed)]
        if kernel is kernels.backward:
            numbers += [batch, self.rows * heads]
        numbers += [heads, dim, time, self.segments]
        for tensor in strides:
            numbers += tensor.stride()[:3]
        kernel[(programs,)](
            *tensors,
            *numbers,
            BLOCK_TIME=self.block_time,
            BLOCK_DIM=self.block_dim,
            num_warps=WARPS,
        )


def count_segments(programs: int, time: int, processors: int) -> int:
    """Into how many segments to cut the time axis: 1 as soon as the rows fill the chip."""
    wanted = -(-2 * processors // max(1, programs))
    return max(1, min(wanted, time // MIN_SEGMENT, MAX_SEGMENTS))


def block_shape(dtype: torch.dtype, dim: int) -> tuple[int, int]:
    """Tokens and dims of a block: as many as the registers hold, float32 taking twice the room."""
    return 16 if dtype == torch.float32 else 32, 32 if dim <= 32 else 64


@cache
def _processors(device: torch.device) -> int:
    if device.type != "cuda":
        return 1
    return torch.cuda.get_device_properties(device).multi_processor_count

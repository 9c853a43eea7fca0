"""The compiled CPU kernels as functions of tensors, and the library that holds them."""

from __future__ import annotations

import ctypes
import struct
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from aaren_rl.ops.packed import check_offsets, unit_stride
from aaren_rl.ops.state import state_dtype

FIELDS = 32
"""Fields of `struct Call` in prefix_attention.cpp, 8 bytes each."""

pack = struct.Struct(f"={FIELDS}q").pack
"""Lays out a call: all fields in the order of `struct Call`, 0 for null."""
_KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float64: 2}
_NULL = (0,) * 10
_MAX_UNIT_DIM = 128
_LANES = 16
_GRAIN = 2**17
"""Elements of `values` that pay for one more thread."""


def forward(
    scores: Tensor,
    values: Tensor,
    m0: Tensor | None,
    u0: Tensor | None,
    w0: Tensor | None,
    cu_seqlens: Tensor | None,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """Outputs, m and u of every prefix, and the final state; see `aaren_rl.ops.fused.register`.

    Shapes: `[batch, time, heads, dim]`, `[batch, heads, time]` twice, `[sequences, heads]` twice,
    and `[sequences, heads, dim]`.
    """
    library = _library()
    real = state_dtype(scores, values)
    inputs = _Inputs(scores, values, real, cu_seqlens)
    batch, time, heads, dim = values.shape
    rows = inputs.rows
    outputs = torch.empty((batch, time, heads, dim), dtype=inputs.values.dtype)
    m = torch.empty((batch, heads, time), dtype=real)
    u = torch.empty((batch, heads, time), dtype=real)
    m_end = torch.empty((rows, heads), dtype=real)
    u_end = torch.empty((rows, heads), dtype=real)
    w_end = torch.empty((rows, heads, dim), dtype=real)
    initial = [term.contiguous() for term in (m0, u0, w0) if term is not None]
    call = pack(
        *inputs.fields(library),
        *([term.data_ptr() for term in initial] or _NULL[:3]),
        *(term.data_ptr() for term in (outputs, m, u, m_end, u_end, w_end)),
        *_NULL[:10],
    )
    library.forward(call, _KINDS[inputs.values.dtype])
    return outputs.to(values.dtype), m, u, m_end, u_end, w_end


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
    library = _library()
    inputs = _Inputs(scores, values, m.dtype, cu_seqlens)
    work = inputs.values.dtype
    batch, time, heads, dim = values.shape
    o = outputs.to(work).contiguous()
    g = o.new_zeros(o.shape) if d_outputs is None else unit_stride(d_outputs.to(work))
    units = inputs.dim_units
    d_scores = torch.empty((units, batch, time, heads), dtype=m.dtype)
    d_values = torch.empty((batch, time, heads, dim), dtype=work)
    du0 = m.new_empty((units, inputs.rows, heads) if m0 is not None else 0)
    dw0 = m.new_empty((inputs.rows, heads, dim) if m0 is not None else 0)
    given = [None if t is None else t.contiguous() for t in (m0, du_end, dw_end)]
    m_before, du, dw = (0 if t is None else t.data_ptr() for t in given)
    call = pack(
        *inputs.fields(library),
        *(m_before, 0, 0, o.data_ptr(), m.data_ptr(), u.data_ptr(), 0, 0, 0),
        *(g.data_ptr(), *g.stride()[:3], du, dw, d_scores.data_ptr(), d_values.data_ptr()),
        *((du0.data_ptr(), dw0.data_ptr()) if m0 is not None else _NULL[:2]),
    )
    library.backward(call, _KINDS[work])

    d_scores = d_scores[0] if units == 1 else d_scores.sum(0)
    results = d_scores.to(scores.dtype), d_values.to(values.dtype)
    if m0 is None or u0 is None or w0 is None:
        return *results, m.new_empty(0), du0, dw0
    du0 = du0[0] if units == 1 else du0.sum(0)
    return *results, u0 * du0 + (w0 * dw0).sum(-1), du0, dw0


class _Inputs:
    """Scores and values as the kernels take them, and how the work is cut."""

    def __init__(
        self, scores: Tensor, values: Tensor, real: torch.dtype, cu_seqlens: Tensor | None
    ) -> None:
        """Convert what the kernels do not read: float16, mixed double, a strided last axis."""
        native = real == torch.float32 and values.dtype in _KINDS
        self.scores = scores.to(real).contiguous()
        self.values = unit_stride(values if native else values.to(real))
        self.offsets = None
        if cu_seqlens is not None:
            self.offsets = cu_seqlens.to("cpu", torch.int64).contiguous()
            check_offsets(self.offsets, values.shape[1])
        self.rows = values.shape[0] if self.offsets is None else self.offsets.shape[0] - 1
        _, _, heads, dim = values.shape
        threads = min(torch.get_num_threads(), 1 + values.numel() // _GRAIN)
        unit = min(_MAX_UNIT_DIM, -(-max(dim, 1) // _LANES) * _LANES)
        while self.rows * heads * -(-dim // unit) < threads and unit % (2 * _LANES) == 0:
            unit //= 2
        self.unit_dim, self.dim_units, self.threads = unit, max(1, -(-dim // unit)), threads

    def fields(self, library: Library) -> tuple[int, ...]:
        """The start of a call, which forward and backward share."""
        _, time, heads, dim = self.values.shape
        return (
            *(self.rows, heads, dim, time),
            0 if self.offsets is None else self.offsets.data_ptr(),
            *(self.unit_dim, self.threads, library.parallel),
            *(self.scores.data_ptr(), self.values.data_ptr(), *self.values.stride()[:3]),
        )


class Library(NamedTuple):
    """The loaded kernels."""

    forward: Any  # (packed call, kind of values) -> None
    backward: Any
    parallel: int  # address of the function that runs on torch's threads, 0 if there is none


@cache
def load() -> Library | None:
    """Load the kernels that the installation built; None if it built none."""
    for suffix in reversed(EXTENSION_SUFFIXES):  # .abi3.so before what older versions built
        path = Path(__file__).with_name("_prefix_attention" + suffix)
        if not path.exists():
            continue
        try:
            library = ctypes.CDLL(str(path))
            size = library.aaren_prefix_attention_call_size
            forward = library.aaren_prefix_attention_forward
            backward = library.aaren_prefix_attention_backward
        except (OSError, AttributeError):  # built for another machine, or by another version
            continue
        size.restype = ctypes.c_int64
        if size() != 8 * FIELDS:
            continue
        for function in (forward, backward):
            function.argtypes = [ctypes.c_char_p, ctypes.c_int]
            function.restype = None
        return Library(forward, backward, _address_of_parallel())
    return None


def _address_of_parallel() -> int:
    """Find `GOMP_parallel` in the OpenMP runtime that torch runs on: one pool of threads.

    Another OpenMP runtime would start a second pool, which ignores `torch.set_num_threads`.
    """
    if not torch.backends.openmp.is_available():
        return 0
    folder = Path(torch.__file__).parent
    bundled = [*folder.glob("lib/libgomp*"), *folder.parent.glob("torch.libs/libgomp*")]
    for name in [*map(str, bundled), "libgomp.so.1"]:
        try:
            runtime = ctypes.CDLL(name, mode=getattr(ctypes, "RTLD_NOLOAD", 4) | 2)
            address = ctypes.cast(runtime.GOMP_parallel, ctypes.c_void_p).value
        except (OSError, AttributeError):
            continue
        return address or 0
    return 0


def _library() -> Library:
    library = load()
    if library is None:
        raise RuntimeError("aaren_rl was installed without its compiled CPU kernels")
    return library

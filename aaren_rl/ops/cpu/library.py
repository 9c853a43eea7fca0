"""Finds the compiled CPU kernels and calls them; says why where they cannot be had."""

from __future__ import annotations

import ctypes
import struct
from dataclasses import dataclass
from functools import cache
from importlib.machinery import EXTENSION_SUFFIXES
from pathlib import Path
from typing import Any

import torch

_LAYOUT = (
    "sequences heads dim time offsets unit_dim threads parallel "
    "scores values value_batch value_time value_head m0 u0 w0 "
    "outputs m u m_end u_end w_end "
    "d_outputs d_output_batch d_output_time d_output_head "
    "du_end dw_end d_scores d_values du0 dw0"
)
FIELDS = _LAYOUT.split()
"""Fields of `struct Call` in prefix_attention.cpp, in its order; 8 bytes each."""

_PACK = struct.Struct(f"={len(FIELDS)}q").pack


@dataclass(frozen=True)
class Library:
    """The loaded kernels.

    Attributes:
        forward: `(packed call, kind of values) -> None`.
        backward: the same.
        parallel: address of the function that runs on torch's threads, 0 if there is none.
    """

    forward: Any
    backward: Any
    parallel: int


@cache
def load() -> Library | None:
    """Load the kernels that the installation built; None if it built none."""
    for suffix in EXTENSION_SUFFIXES:
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
        if size() != 8 * len(FIELDS):
            continue
        for function in (forward, backward):
            function.argtypes = [ctypes.c_char_p, ctypes.c_int]
            function.restype = None
        return Library(forward, backward, _address_of_parallel())
    return None


def pack(**fields: int) -> bytes:
    """Lay out a call; fields that are not given are 0 (null)."""
    return _PACK(*[fields.get(name, 0) for name in FIELDS])


def _address_of_parallel() -> int:
    """Find `GOMP_parallel` in the OpenMP runtime that torch runs on: one pool of threads.

    A runtime of our own would bring a second pool, which ignores `torch.set_num_threads`.
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

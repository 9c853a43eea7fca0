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

FIELDS = 32
"""Fields of `struct Call` in prefix_attention.cpp, 8 bytes each."""

pack = struct.Struct(f"={FIELDS}q").pack
"""Lays out a call: all fields in the order of `struct Call`, 0 for null."""


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

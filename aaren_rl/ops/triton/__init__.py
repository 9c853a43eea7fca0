"""The fused GPU backend, in Triton.

It is there where `triton` is installed beside a CUDA build of torch. With TRITON_INTERPRET=1 it
runs on CPU tensors instead, by Triton's interpreter: slow, for tests.
"""

from __future__ import annotations

import os
from importlib.util import find_spec

import torch

from aaren_rl.ops.packed import Backend

INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
DEVICE = "cpu" if INTERPRETED else "cuda"


def _register() -> Backend | None:
    if find_spec("triton") is None or not (INTERPRETED or torch.version.cuda):
        return None
    from aaren_rl.ops.fused import register
    from aaren_rl.ops.triton.launch import backward, forward

    return register("prefix_attention_triton", forward, backward, DEVICE.upper())


triton = _register()
"""The backend; None where it cannot be."""


def is_usable() -> bool:
    """Whether there is a device that the backend runs on."""
    return triton is not None and (INTERPRETED or torch.cuda.is_available())


__all__ = ["DEVICE", "INTERPRETED", "is_usable", "triton"]

"""Which arithmetic is fast here."""

from __future__ import annotations

from typing import Literal

import torch


def fast_precision() -> Literal["32", "bf16"]:
    """`bf16` on a CPU with bfloat16 instructions (it halves an update's time there), else `32`.

    Without them bfloat16 is emulated, and slower than float32.
    """
    has = torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported()
    return "bf16" if has else "32"

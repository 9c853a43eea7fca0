"""Which arithmetic is fast here."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import torch

if TYPE_CHECKING:
    from aaren_rl.training.config import TrainSettings


def fast_precision(device: str = "cpu") -> Literal["32", "bf16"]:
    """`bf16` where matrix units multiply it, else `32`.

    On a CPU these are Intel's AMX tiles: with them an update takes half as long. With vector
    instructions alone bfloat16 was slower than float32 on one machine (benchmarks/README.md).

    Args:
        device: `cpu` or `cuda`.
    """
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "32"
    return "bf16" if torch.cpu._is_amx_tile_supported() else "32"


def resolved_precision(config: TrainSettings) -> Literal["32", "bf16"]:
    """The arithmetic that `--precision` and `--device` come to on this machine."""
    if config.precision != "auto":
        return config.precision
    on_gpu = config.device != "cpu" and torch.cuda.is_available()
    return fast_precision("cuda" if on_gpu else "cpu")

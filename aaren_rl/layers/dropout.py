"""Dropout whose random numbers are cheap on a CPU."""

from __future__ import annotations

import torch
from torch import Tensor, nn

LEVELS = 1 << 16  # probabilities are rounded to 1/65536


class Dropout(nn.Module):
    """Zero a random share of the elements in training and scale up the rest.

    Like `torch.nn.Dropout`, which on a CPU draws one number for each element, one after another.
    Here four elements share one 64-bit number, 16 bits each. With `torch.nn.Dropout` a training
    step takes 1.16 times as long in bfloat16 and 1.09 times in float32 (Decision Aaren, 64 windows
    of 20 steps, width 128, one thread, both in one process in turns, median of 25 ratios).

    Args:
        share: of the elements to zero, in [0, 1); rounded to a multiple of 1/65536.

    Raises:
        ValueError: for another share.
    """

    def __init__(self, share: float) -> None:
        super().__init__()
        if not 0 <= share < 1:
            raise ValueError(f"the share to drop must be in [0, 1), got {share}")
        self.share = share

    def forward(self, x: Tensor) -> Tensor:
        """`[...]` to the same shape and dtype."""
        dropped = round(self.share * LEVELS)
        if not self.training or dropped == 0:
            return x
        if x.device.type != "cpu" or torch.compiler.is_compiling():
            return nn.functional.dropout(x, self.share)
        numbers = torch.empty((x.numel() + 3) // 4, dtype=torch.int64).random_(-(2**63), None)
        bits = numbers.view(torch.int16)[: x.numel()].view(x.shape)
        # 0 or 1 in integers: a comparison's bools take four times as long to become floats.
        highest_dropped = dropped - LEVELS // 2 - 1
        kept = bits.clamp_(highest_dropped, highest_dropped + 1).sub_(highest_dropped).to(x.dtype)
        return x * kept.mul_(LEVELS / (LEVELS - dropped))

    def extra_repr(self) -> str:
        """The share, for `print(model)`."""
        return f"share={self.share}"

"""The learning rate as a function of the update."""

from __future__ import annotations

import math
from typing import Literal

FLOOR = 0.1  # of the peak, at the end of a cosine


def learning_rate_factor(
    update: int, updates: int, warmup: float, schedule: Literal["cosine", "constant"]
) -> float:
    """Share of the peak learning rate at an update, in (0, 1].

    Args:
        update: which update, from 0.
        updates: how many there will be.
        warmup: share of `updates` over which the rate rises linearly.
        schedule: `cosine` (down to a tenth) or `constant` after the warm-up.
    """
    rising = round(warmup * updates)
    if update < rising:
        return (update + 1) / rising
    if schedule == "constant":
        return 1.0
    progress = (update - rising) / max(1, updates - rising)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

"""AdamW with weight decay on the weights that it helps, and its learning rate by the update."""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import nn

FLOOR = 0.1  # of the peak, at the end of a cosine


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls a parameter towards zero.

    It does for the matrices of the blocks and of the head. Biases, the gains of norms and Aaren's
    query token are vectors whose size carries meaning; the embeddings are followed by a norm, so
    that a smaller embedding is the same token to the blocks.

    Args:
        name: as `Module.named_parameters` of an agent gives it.
        parameter: of that name.
    """
    return parameter.dim() >= 2 and not name.startswith("embed_")


def make_optimizer(
    agent: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW in two groups, with and without weight decay.

    Args:
        agent: whose parameters are trained.
        learning_rate: peak learning rate.
        weight_decay: decoupled weight decay of the group that has it.
    """
    named = list(agent.named_parameters())
    groups = [[(n, p) for n, p in named if decayed(n, p) is wanted] for wanted in (True, False)]
    return torch.optim.AdamW(
        [
            {"params": [p for _, p in group], "weight_decay": decay}
            for group, decay in zip(groups, (weight_decay, 0.0), strict=True)
            if group
        ],
        lr=learning_rate,
        fused=True,
    )


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

"""Packed batches: sequences of different length one after the other on one time axis.

The batch is 1 and `cu_seqlens` (int64 `[sequences + 1]`, on the CPU) holds the cumulated lengths
`[0, n_1, n_1 + n_2, ...]`, as in flash-linear-attention. Nothing passes from one to the next.
"""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TypeVar

import torch
from torch import Tensor

S = TypeVar("S")


def each_sequence(
    mix: Callable[[Tensor], tuple[Tensor, S]], x: Tensor, cu_seqlens: Tensor, read: slice
) -> tuple[Tensor, S]:
    """Run a mixer on one sequence after the other.

    Args:
        mix: from tokens `[1, length, width]` to outputs of the same shape and a state.
        x: `[1, time, width]`.
        cu_seqlens: `[sequences + 1]`.
        read: the tokens of the whole time axis whose outputs are wanted.

    Returns:
        Outputs `[1, tokens in read, width]`, and the last sequence's state.
    """
    pieces, state = [], None
    for start, end in pairwise(cu_seqlens.tolist()):
        piece, state = mix(x[:, start:end])
        pieces.append(piece)
    assert state is not None
    return torch.cat(pieces, dim=1)[:, read], state

"""Packed batches: sequences of different length one after the other on one time axis.

As in flash-linear-attention: the batch is 1 and `cu_seqlens` holds the cumulated lengths
`[0, n_1, n_1 + n_2, ...]`; the state has one row a sequence.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from aaren_rl.errors import UserError
from aaren_rl.ops.state import PrefixState

Plain = Callable[[Tensor, Tensor, PrefixState | None], tuple[Tensor, PrefixState]]
Backend = Callable[[Tensor, Tensor, PrefixState | None, Tensor | None], tuple[Tensor, PrefixState]]


def check_offsets(offsets: Tensor, time: int) -> None:
    """Check the values of a `cu_seqlens` that lies on the CPU.

    Raises:
        UserError: it does not rise from 0 to `time`.
    """
    lengths = offsets.diff()
    if offsets[0] != 0 or offsets[-1] != time or (lengths < 0).any():
        raise UserError(
            f"prefix_attention: cu_seqlens must rise from 0 to the time axis's length {time}, "
            f"got {offsets[:4].tolist()} ... {offsets[-1].item()}"
        )


def unit_stride(tensor: Tensor) -> Tensor:
    """The tensor, copied unless its last axis is contiguous, as the kernels read it."""
    return tensor if tensor.stride(-1) == 1 else tensor.contiguous()


def with_packing(run: Plain) -> Backend:
    """Packed batches for a backend that takes rows of one length only.

    Sequences of like length (up to the next power of two) are padded with tokens that do not
    exist (score -inf) into one batch: at most half of it is padding, and there are at most
    log2(longest) calls.
    """

    def run_packed(
        scores: Tensor, values: Tensor, state: PrefixState | None, cu_seqlens: Tensor | None
    ) -> tuple[Tensor, PrefixState]:
        if cu_seqlens is None:
            return run(scores, values, state)
        offsets = cu_seqlens.to("cpu", torch.int64)
        check_offsets(offsets, values.shape[1])
        lengths = offsets.diff()
        classes = [max(0, length - 1).bit_length() if length else -1 for length in lengths.tolist()]
        outputs: list[Tensor] = []
        terms: list[list[Tensor]] = [[], [], []]
        order, places = [], []
        for size_class in sorted(set(classes)):
            rows = torch.tensor([i for i, c in enumerate(classes) if c == size_class])
            ticks = torch.arange(int(lengths[rows].max()))
            present = (ticks < lengths[rows, None]).to(values.device)
            token = (offsets[rows, None] + ticks).clamp_max(values.shape[1] - 1).to(values.device)
            padded_scores = scores[0, token].masked_fill(~present[..., None], -torch.inf)
            padded_values = values[0, token].masked_fill(~present[..., None, None], 0.0)
            initial = None if state is None else state[rows.to(values.device)]
            padded_outputs, final = run(padded_scores, padded_values, initial)
            outputs.append(padded_outputs[present])
            places.append(token[present])
            order.append(rows)
            for kept, term in zip(terms, final.terms, strict=True):
                kept.append(term)
        place = torch.cat(places).argsort()
        back = torch.cat(order).argsort().to(values.device)
        state = PrefixState(*(torch.cat(kept)[back] for kept in terms))
        return torch.cat(outputs)[place][None], state

    return run_packed

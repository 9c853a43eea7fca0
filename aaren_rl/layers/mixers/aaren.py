"""Aaren: attention with a fixed, learned query (Feng et al. 2024, arXiv 2405.13956)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from aaren_rl.layers.mixers.base import register_mixer
from aaren_rl.layers.mixers.options import AarenOptions
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import EVERY_TOKEN, check_mask
from aaren_rl.ops import PrefixState, prefix_attention


class AarenAttention(nn.Module):
    """Multi-head attention over the prefix, with one learned query token.

    The parameters are those of a Transformer's attention (query, key, value and output
    projections, biased) and one token of size `width` more: 4 width^2 + 5 width.

    Since the query is the same at every token, its product with the key projection is one vector
    a head, and the keys themselves are never formed: with q_h = (W_q token + b_q)_h,

        score_ih = (W_k x_i + b_k)_h . q_h / sqrt(dim) = x_i . (W_k,h^T q_h / sqrt(dim)) + const

    Softmax is invariant to the constant, which is the same for all tokens of a head; it is kept so
    that a state means the same however it was made.

    With one head the output projection goes into the values, which are then projected once and
    not twice: the weights p sum to one, so

        W_o (sum_i p_i (W_v x_i + b_v)) + b_o = sum_i p_i (W_o W_v x_i + W_o b_v + b_o)

    and the state's weighted sum is in the output's space. With several heads that would need values
    of the full width for each. The output of a token that sees nothing, since all tokens up to it
    are masked, is zero with one head and b_o with several.

    A mean does not know the tokens' order. With `recency` the scores of head h rise by recency_h a
    token, the linear bias of ALiBi (Press et al. 2022, arXiv 2108.12409),

        score_ih = x_i . (...) + recency_h i

    so that a head forgets at its own rate and one with 0 keeps for ever. Only differences of
    positions count: they are counted from the call's first token, and the state's maximum is
    lowered by recency_h for every token that passes, so that nothing grows with the episode.

    Args:
        width: size of a token.
        heads: number of heads; must divide `width`.
        recency: one rate a head, in nats a token, at least 0; empty for none.
        backend: which implementation of the scan to use, see `aaren_rl.ops.prefix_attention`.
        dilution: N >= 1; in training each token counts as N^u tokens, u uniform in [0, 1) and drawn
            anew for every token and head (u log N is added to its score), so that a memory survives
            more tokens than there were. 1 is off.
        out_std: standard deviation of the output projection's weights at the start.

    Raises:
        ValueError: heads that do not divide `width`, or a rate or dilution out of its range.
    """

    state_type = PrefixState
    recency: Tensor | None

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        backend: str = "auto",
        dilution: float = 1.0,
        recency: Sequence[float] = (),
        out_std: float = STD,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        if not 1 <= dilution < math.inf:
            raise ValueError(f"dilution must be finite and at least 1, got {dilution}")
        self.width, self.heads, self.backend = width, heads, backend
        self.dilution = dilution
        if recency and (len(recency) != heads or not all(rate >= 0 for rate in recency)):
            raise ValueError(f"recency: one rate >= 0 for each of {heads} heads, got {recency}")
        # Not saved: it is part of the shape.
        rates = torch.tensor(recency, dtype=torch.float32) if any(recency) else None
        self.register_buffer("recency", rates, persistent=False)
        self.query_token = nn.Parameter(torch.empty(width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.out_std = out_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the projections as GPT-2 does, and the query token from N(0, 1).

        The query token has the scale of a normalised token, so that at the start scores differ as
        much as between two tokens of the Transformer. With a much smaller one all weights start
        equal, and a cue among hundreds of tokens is too faint to be learned (docs/memory.md).
        """
        nn.init.normal_(self.query_token)
        for projection in (self.query, self.key, self.value):
            start_linear(projection)
        start_linear(self.out, self.out_std)

    def score_projection(self) -> tuple[Tensor, Tensor]:
        """The keys and the query folded into one map: weight `[width, heads]`, bias `[heads]`."""
        dim = self.width // self.heads
        query = nn.functional.linear(self.query_token, self.query.weight, self.query.bias)
        query = query.view(self.heads, dim) / math.sqrt(dim)
        weight = torch.einsum("hdw,hd->wh", self.key.weight.view(self.heads, dim, -1), query)
        return weight, (self.key.bias.view(self.heads, dim) * query).sum(-1)

    def value_projection(self) -> tuple[Tensor, Tensor]:
        """The map from tokens to values: weight `[width, width]` and bias `[width]`."""
        if self.heads > 1:
            return self.value.weight, self.value.bias
        with torch.autocast(self.value.weight.device.type, enabled=False):
            weight = self.out.weight @ self.value.weight
            return weight, torch.addmv(self.out.bias, self.out.weight, self.value.bias)

    def scores(self, x: Tensor) -> Tensor:
        """Scores `[batch, time, heads]` of tokens `[batch, time, width]`, at least in float32.

        In half precision a score of 10 is off by up to 0.03, and so would be every weight.
        """
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.score_projection()
            return x.to(weight.dtype) @ weight + bias

    def recency_bias(
        self, x: Tensor, mask: Tensor | None = None, cu_seqlens: Tensor | None = None
    ) -> tuple[Tensor, Tensor] | None:
        """Recency as a bias of the scores, `[batch or 1, time, heads]`, and of a state's maximum.

        The second, `[rows or 1, heads]`, is subtracted. `None` without recency. Only the number of
        tokens `x` is used; a masked token does not count.
        """
        if self.recency is None:
            return None
        if mask is not None:
            counted = mask.cumsum(1)
            position, passed = counted - 1, mask.sum(1)
        else:
            position = torch.arange(x.shape[1], device=x.device)[None]
            passed = torch.full((1,), x.shape[1], device=x.device)  # no copy, which a GPU waits for
            if cu_seqlens is not None:
                passed = cu_seqlens.diff().to(x.device)
                position = position - cu_seqlens[:-1].to(x.device).repeat_interleave(passed)
        return position[..., None] * self.recency, passed[:, None] * self.recency

    def forward(
        self,
        x: Tensor,
        state: PrefixState | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, PrefixState]:
        """Mix tokens with their past.

        Args:
            x: tokens `[batch, time, width]`; batch and time may be 0.
            state: the past before `x`; `None` is the empty past.
            mask: bool `[batch, time]`, for padding anywhere in a row: a token where it is false
                leaves no trace in later outputs and the state. It is the inverse of the
                `key_padding_mask` of `torch.nn.MultiheadAttention`, which is true for padding.
            read: the tokens whose outputs are wanted; all are mixed.
            cu_seqlens: the cumulated lengths of a packed batch, see `aaren_rl.layers.mixers.base`;
                the state then has a row for each sequence.

        Returns:
            Outputs `[batch, tokens in read, width]` and the state after the last token.
        """
        check_mask(x, mask)
        batch, time, _ = x.shape
        scores = self.scores(x)
        bias = self.recency_bias(x, mask, cu_seqlens)
        if bias is not None:
            scores = scores + bias[0]
        if self.training and self.dilution > 1:
            scores = scores + torch.rand_like(scores) * math.log(self.dilution)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -math.inf)
        values = nn.functional.linear(x, *self.value_projection())
        values = values.view(batch, time, self.heads, self.width // self.heads)
        outputs, state = prefix_attention(
            scores, values, initial_state=state, cu_seqlens=cu_seqlens, backend=self.backend
        )
        if bias is not None:
            state = replace(state, maximum=state.maximum - bias[1])
        mixed = outputs[:, read].flatten(2)
        return (mixed if self.heads == 1 else self.out(mixed)), state


register_mixer("aaren", AarenAttention, options=AarenOptions)

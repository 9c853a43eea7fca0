"""Aaren: attention with a fixed, learned query (Feng et al. 2024, arXiv 2405.13956)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aaren_rl.layers.state import EVERY_TOKEN, check_mask
from aaren_rl.ops import PrefixState, prefix_attention


class AarenAttention(nn.Module):
    """Multi-head attention over the prefix, asked by one learned query token.

    The parameters are those of a Transformer's attention (query, key, value and output
    projections, biased) and one token of size `width` more: 4 width^2 + 5 width.

    Since the query is the same at every token, its product with the key projection is one vector
    a head, and the keys themselves are never formed: with q_h = (W_q token + b_q)_h,

        score_ih = (W_k x_i + b_k)_h . q_h / sqrt(dim) = x_i . (W_k,h^T q_h / sqrt(dim)) + const

    The constant is the same for all tokens of a head, so softmax does not see it; it is kept so
    that a state means the same however it was made.

    Args:
        width: size of a token.
        heads: number of heads; must divide `width`.
        backend: which implementation of the scan to use, see `aaren_rl.ops.prefix_attention`.
        dilution: N >= 1; in training each token counts as N^u tokens, u uniform in [0, 1) and drawn
            anew for every token and head (u log N is added to its score). A memory that survives
            this survives many more tokens than there were. 1 is off.
    """

    state_type = PrefixState

    def __init__(
        self, width: int, heads: int = 1, *, backend: str = "auto", dilution: float = 1.0
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        if not 1 <= dilution < math.inf:
            raise ValueError(f"dilution must be finite and at least 1, got {dilution}")
        self.width, self.heads, self.backend = width, heads, backend
        self.dilution = dilution
        # Drawn at the scale of a normalised token, so that at the start scores differ as much as
        # between two tokens of the Transformer. Much smaller, and all weights begin equal: then a
        # cue among hundreds of tokens is seen too faintly to be learned (docs/memory.md).
        self.query_token = nn.Parameter(torch.randn(width))
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)

    def score_projection(self) -> tuple[Tensor, Tensor]:
        """The keys and the query folded into one map: weight `[width, heads]`, bias `[heads]`."""
        dim = self.width // self.heads
        query = nn.functional.linear(self.query_token, self.query.weight, self.query.bias)
        query = query.view(self.heads, dim) / math.sqrt(dim)
        weight = torch.einsum("hdw,hd->wh", self.key.weight.view(self.heads, dim, -1), query)
        return weight, (self.key.bias.view(self.heads, dim) * query).sum(-1)

    def scores(self, x: Tensor) -> Tensor:
        """Scores `[batch, time, heads]` of tokens `[batch, time, width]`, at least in float32.

        In half precision a score of 10 is off by up to 0.03, and so would be every weight.
        """
        with torch.autocast(x.device.type, enabled=False):
            weight, bias = self.score_projection()
            return x.to(weight.dtype) @ weight + bias

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
            x: tokens `[batch, time, width]`.
            state: the past before `x`; `None` is the empty past.
            mask: bool `[batch, time]`; a token where it is false leaves no trace.
            read: the tokens whose outputs are wanted; all are mixed.
            cu_seqlens: for a packed batch (`aaren_rl.layers.packed`), the cumulated lengths; the
                state then has a row for each sequence.

        Returns:
            Outputs `[batch, tokens in read, width]` and the state after the last token.
        """
        check_mask(x, mask)
        batch, time, _ = x.shape
        scores = self.scores(x)
        if self.training and self.dilution > 1:
            scores = scores + torch.rand_like(scores) * math.log(self.dilution)
        if mask is not None:
            scores = scores.masked_fill(~mask[..., None], -math.inf)
        values = self.value(x).view(batch, time, self.heads, -1)
        outputs, state = prefix_attention(
            scores, values, initial_state=state, cu_seqlens=cu_seqlens, backend=self.backend
        )
        return self.out(outputs[:, read].flatten(2)), state

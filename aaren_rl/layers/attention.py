"""Causal self-attention, the Transformer's mixer, with a key-value cache for acting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from aaren_rl.layers.state import EVERY_TOKEN, check_mask


@dataclass(frozen=True)
class KeyValueCache:
    """Keys and values of all tokens so far: `[batch, heads, time, dim]`; grows with every token.

    `valid` (bool `[batch, time]`) says which of them still count for each sequence; `None` is all.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors together."""
        return (
            self.keys.nbytes + self.values.nbytes + (0 if self.valid is None else self.valid.nbytes)
        )

    def reset(self, mask: Tensor) -> KeyValueCache:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        valid = ~mask[:, None].expand(-1, self.keys.shape[2])
        if self.valid is not None:
            valid = valid & self.valid
        # Columns that no sequence needs any more go, or restarts would let the cache grow for ever.
        alive = valid.any(0).nonzero()
        start = int(alive[0]) if len(alive) else valid.shape[1]
        return KeyValueCache(self.keys[:, :, start:], self.values[:, :, start:], valid[:, start:])

    def detach(self) -> KeyValueCache:
        """The same values, cut off from the graph."""
        return KeyValueCache(self.keys.detach(), self.values.detach(), self.valid)

    def __getitem__(self, index: Any) -> KeyValueCache:
        """The caches of some of the sequences."""
        valid = None if self.valid is None else self.valid[index]
        return KeyValueCache(self.keys[index], self.values[index], valid)

    def append(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> KeyValueCache:
        """The cache with `time` tokens more; arguments as the fields."""
        if self.valid is not None or valid is not None:
            old = _all_valid(self.keys) if self.valid is None else self.valid
            new = _all_valid(keys) if valid is None else valid
            valid = torch.cat([old, new], dim=1)
        return KeyValueCache(
            torch.cat([self.keys, keys], dim=2), torch.cat([self.values, values], dim=2), valid
        )

    def last(self, count: int) -> KeyValueCache:
        """Only the last `count` tokens."""
        if self.keys.shape[2] <= count:
            return self
        valid = None if self.valid is None else self.valid[:, -count:]
        return KeyValueCache(self.keys[:, :, -count:], self.values[:, :, -count:], valid)


def _all_valid(keys: Tensor) -> Tensor:
    return torch.ones(keys.shape[0], keys.shape[2], dtype=torch.bool, device=keys.device)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention (torch's SDPA), as in GPT-2.

    Args:
        width: size of a token.
        heads: number of heads; must divide `width`.
        dropout: share of attention weights dropped in training.
        window: attend to the last `window` tokens only (the token itself is one of them), in
            training and acting alike; `None` is the whole past. Bounds the cache.
    """

    state_type = KeyValueCache

    def __init__(
        self, width: int, heads: int = 1, *, dropout: float = 0.0, window: int | None = None
    ) -> None:
        super().__init__()
        if width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        if window is not None and window < 1:
            raise ValueError(f"window must be at least 1 token, got {window}")
        self.width, self.heads, self.dropout, self.window = width, heads, dropout, window
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self,
        x: Tensor,
        state: KeyValueCache | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
    ) -> tuple[Tensor, KeyValueCache]:
        """Mix tokens with their past; arguments and results as `AarenAttention.forward`."""
        check_mask(x, mask)
        batch, time, _ = x.shape
        projected = self.query_key_value(x).view(batch, time, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        cache = KeyValueCache(keys, values, mask)
        if state is not None:
            cache = state.append(keys, values, mask)
        causal, bias = self._visible(cache, time)
        outputs = scaled_dot_product_attention(
            queries,
            cache.keys,
            cache.values,
            attn_mask=bias,
            is_causal=causal,
            dropout_p=self.dropout if self.training else 0.0,
        )
        outputs = outputs.transpose(1, 2)[:, read].flatten(2)
        return self.out(outputs), cache if self.window is None else cache.last(self.window)

    def _visible(self, cache: KeyValueCache, time: int) -> tuple[bool, Tensor | None]:
        """Whether plain causal masking does, else what each query sees, bool `[.., time, past]`."""
        total = cache.keys.shape[2]
        if cache.valid is None and time == 1 and (self.window is None or total <= self.window):
            return False, None
        if cache.valid is None and time == total and (self.window is None or total <= self.window):
            return True, None
        age = torch.arange(total - time, total, device=cache.keys.device)[:, None] - torch.arange(
            total, device=cache.keys.device
        )
        visible = age >= 0
        if self.window is not None:
            visible = visible & (age < self.window)
        if cache.valid is not None:
            # A masked token sees itself, only so that its (unused) row is not a softmax of nothing.
            visible = (visible & cache.valid[:, None, :]) | (age == 0)
            visible = visible[:, None]
        return False, visible

"""Causal self-attention, the Transformer's mixer, with a key-value cache for acting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from aaren_rl.errors import UserError
from aaren_rl.layers.dropout import Dropout
from aaren_rl.layers.mixers.base import each_sequence, register_mixer
from aaren_rl.layers.mixers.options import AttentionOptions
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import EVERY_TOKEN, TensorState, check_mask

SMALLEST_BUFFER = 64  # tokens
LARGEST_WRITTEN_OUT = 2**25  # elements of all time x time matrices: 64 MB in bfloat16


class _Buffer:
    """Preallocated key/value buffer; grows by doubling.

    Several caches may be views of one buffer. Tokens are only ever written behind the last one, so
    that a cache never changes.
    """

    def __init__(self, keys: Tensor, values: Tensor, more: int) -> None:
        batch, heads, used, dim = keys.shape
        size = max(SMALLEST_BUFFER, 2 * (used + more))
        self.keys = keys.new_empty(batch, heads, size, dim)
        self.values = torch.empty_like(self.keys)
        self.keys[:, :, :used], self.values[:, :, :used] = keys, values
        self.used = used

    def has_place(self, start: int, count: int) -> bool:
        """Whether `count` tokens fit at `start` without overwriting another cache's."""
        # PyTorch writes into tensors made in inference mode only in inference mode.
        writable = torch.is_inference_mode_enabled() or not self.keys.is_inference()
        return writable and start == self.used and start + count <= self.keys.shape[2]


@dataclass(frozen=True)
class KeyValueCache(TensorState):
    """Keys and values of all tokens so far: `[batch, heads, time, dim]`; grows with every token.

    `valid` (bool `[batch, time]`) says which of them count for each sequence; `None` is all.
    Without gradients new tokens are written behind the old ones in a buffer that is doubled when
    it is full. Copying all tokens at every step instead made 1,000 steps of the quickstart's
    Transformer 1.6 times as long.
    """

    keys: Tensor
    values: Tensor
    valid: Tensor | None = None
    # Not a field, since it is no part of the value: the buffer, and the index of its end in it.
    _place: ClassVar[tuple[_Buffer, int] | None] = None

    def reset(self, mask: Tensor) -> KeyValueCache:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        valid = ~mask[:, None].expand(-1, self.keys.shape[2])
        if self.valid is not None:
            valid = valid & self.valid
        # Columns that no sequence needs are dropped, or the cache would grow with every restart.
        alive = valid.any(0).nonzero()
        start = int(alive[0]) if len(alive) else valid.shape[1]
        return self._part(start, valid)

    def _part(self, start: int, valid: Tensor | None) -> KeyValueCache:
        """The tokens from `start` on; `valid` is that of all tokens."""
        valid = None if valid is None else valid[:, start:]
        part = KeyValueCache(self.keys[:, :, start:], self.values[:, :, start:], valid)
        object.__setattr__(part, "_place", self._place)
        return part

    def append(self, keys: Tensor, values: Tensor, valid: Tensor | None) -> KeyValueCache:
        """The cache with `time` tokens more; arguments as the fields.

        Raises:
            UserError: for tokens of another model or batch.
        """
        (batch, heads, _, dim), own = keys.shape, self.keys.shape
        if (batch, heads, dim) != (own[0], own[1], own[3]):
            raise UserError(
                f"a cache of shape [{batch}, {heads}, time, {dim}] expected, got {list(own)}: "
                "another model's or batch's?"
            )
        if self.valid is not None or valid is not None:
            old = _all_valid(self.keys) if self.valid is None else self.valid
            new = _all_valid(keys) if valid is None else valid
            valid = torch.cat([old, new], dim=1)
        if torch.is_grad_enabled() or torch.compiler.is_compiling():
            keys = torch.cat([self.keys, keys], dim=2)
            return KeyValueCache(keys, torch.cat([self.values, values], dim=2), valid)
        past, count = self.keys.shape[2], keys.shape[2]
        buffer, end = self._place or (None, 0)
        if buffer is None or not buffer.has_place(end, count):
            buffer, end = _Buffer(self.keys, self.values, count), past
        buffer.used = stop = end + count
        buffer.keys[:, :, end:stop], buffer.values[:, :, end:stop] = keys, values
        here = slice(end - past, stop)
        cache = KeyValueCache(buffer.keys[:, :, here], buffer.values[:, :, here], valid)
        object.__setattr__(cache, "_place", (buffer, stop))
        return cache

    def last(self, count: int) -> KeyValueCache:
        """Only the last `count` tokens."""
        return self._part(max(0, self.keys.shape[2] - count), self.valid)


def _all_valid(keys: Tensor) -> Tensor:
    return torch.ones(keys.shape[0], keys.shape[2], dtype=torch.bool, device=keys.device)


class CausalSelfAttention(nn.Module):
    """Multi-head causal self-attention (torch's SDPA), as in GPT-2.

    Args:
        width: size of a token.
        heads: number of heads; must divide `width`.
        attention_dropout: share of attention weights dropped in training.
        out_std: standard deviation of the output projection's weights at the start.

    Raises:
        ValueError: heads that do not divide `width`, or a share out of its range.
    """

    state_type = KeyValueCache
    slides = True

    def __init__(
        self,
        width: int,
        heads: int = 1,
        *,
        attention_dropout: float = 0.0,
        out_std: float = STD,
    ) -> None:
        super().__init__()
        if heads < 1 or width % heads:
            raise ValueError(f"heads ({heads}) must divide width ({width})")
        self.width, self.heads = width, heads
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.weights_dropout = Dropout(attention_dropout)
        self.out_std = out_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as GPT-2 does."""
        start_linear(self.query_key_value)
        start_linear(self.out, self.out_std)

    def forward(
        self,
        x: Tensor,
        state: KeyValueCache | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, KeyValueCache]:
        """Mix tokens with their past; arguments and results as `AarenAttention.forward`.

        The state after a packed batch is the last sequence's.
        """
        if cu_seqlens is not None:
            return each_sequence(self, x, cu_seqlens, read)
        check_mask(x, mask)
        batch, time, _ = x.shape
        projected = self.query_key_value(x).view(batch, time, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        cache = KeyValueCache(keys, values, mask)
        if state is not None:
            cache = state.append(keys, values, mask)
        causal, bias = visible(cache, time)
        if causal and written_out_is_faster(queries):
            outputs = self._written_out(queries, keys, values)
        else:
            outputs = scaled_dot_product_attention(
                queries,
                cache.keys,
                cache.values,
                attn_mask=bias,
                is_causal=causal,
                dropout_p=self.weights_dropout.share if self.training else 0.0,
            )
        outputs = outputs.transpose(1, 2)[:, read].flatten(2)
        return self.out(outputs), cache

    def _written_out(self, queries: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """Causal softmax attention as three operations, `[batch, heads, time, dim]` each."""
        time, dim = queries.shape[-2:]
        future = queries.new_full((time, time), -torch.inf).triu(1)
        rows = queries.flatten(0, 1), keys.flatten(0, 1), values.flatten(0, 1)
        scores = torch.baddbmm(future, rows[0], rows[1].mT, alpha=dim**-0.5)
        mixed = torch.bmm(self.weights_dropout(scores.softmax(-1)), rows[2])
        return mixed.view_as(queries)


def written_out_is_faster(queries: Tensor) -> bool:
    """Whether bfloat16 on a CPU, of a size whose time x time matrices are affordable.

    SDPA takes 3 times as long there at 60 tokens, and 1.5 times at 3,000 (benchmarks/README.md).
    """
    batch, heads, time, _ = queries.shape
    affordable = batch * heads * time * time <= LARGEST_WRITTEN_OUT
    return affordable and queries.dtype == torch.bfloat16 and queries.device.type == "cpu"


def visible(cache: KeyValueCache, time: int) -> tuple[bool, Tensor | None]:
    """The attention mask of the newest `time` tokens over a cache that holds them.

    Returns:
        Whether plain causal masking does, else what each sees, bool `[.., time, past]` (`None` for
        everything).
    """
    total = cache.keys.shape[2]
    if cache.valid is None and time in (1, total):
        return time > 1, None
    causal = torch.ones(time, total, dtype=torch.bool, device=cache.keys.device)
    causal = causal.tril_(total - time)
    if cache.valid is None:
        return False, causal
    # A masked token sees itself, only so that its (unused) row is not a softmax of nothing.
    itself = causal.triu(total - time)
    return False, ((causal & cache.valid[:, None, :]) | itself)[:, None]


register_mixer("attention", CausalSelfAttention, options=AttentionOptions)

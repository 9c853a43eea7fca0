"""An Aaren layer for acting: everything constant is multiplied out once, in float64.

Keys and query become one score vector a head, and with one head the output projection goes into the
values, see `AarenAttention`.

A layer reads layer-normed tokens, whose length is at most sqrt(width) before scale and shift. Its
scores, without their constant, to which softmax is invariant, are therefore bounded by a number
computed from the weights, `FoldedAttention.bound`. Where it is small, as in trained agents (3 to 5
in Hopper), no maximum has to be carried: with the state (w, u) and new tokens j,

    (w_i, u_i) = (w, u) + sum_{j <= i} exp(s_j) (v_j, 1);      o_i = w_i / u_i

neither overflows nor underflows. Else the state is the paper's (m, u, w), and with
M_i = max(m, s_0 .. s_i)

    (w_i, u_i) = exp(m - M_i) (w, u) + sum_{j <= i} exp(s_j - M_i) (v_j, 1)

A head's recency r (see `AarenAttention`) is counted back from a chunk's last token: r (i - n + 1)
is added to the scores of n new tokens, and the state grows older by n tokens, so m falls by n r, or
w and u are multiplied by exp(-n r).

Both are `aaren_rl.ops.recurrent` for several tokens at a time. w and u lie side by side in one
tensor `[batch, heads, dim + 1]`, m in `[batch, heads, 1]`. A token that must not be seen has the
score `ABSENT`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.layers.mixers.aaren import AarenAttention

# Finite, and far below every score: exp(ABSENT - M) is 0, and a token that sees nothing (the
# previous action where an episode starts) gets finite numbers, which are not read, and not NaN.
ABSENT = -3e38
# Up to this bound scores need no maximum: sums of 10^7 times exp(40) are far from float32's largest
# number, and exp(-40) is far from its smallest.
NO_MAXIMUM = 40.0
# The empty state (w, u): negligible beside exp(-40), but a token that sees nothing divides by it.
NOTHING = 1e-30
Affine = tuple[np.ndarray, np.ndarray]
"""Weight `[in, out]` and bias `[out]`, float64: `y = x @ weight + bias`."""


@dataclass(frozen=True)
class FoldedAttention:
    """One Aaren layer for acting.

    Attributes:
        heads: number of heads.
        dim: size of a head's value.
        project: tokens `[.., width]` to `[.., heads (dim + 2)]`: for each head its value, a one
            (whose weighted sum is the normalizer) and its score.
        out: the output projection, `None` where it has gone into `project`.
        bound: largest absolute score, before recency.
    """

    heads: int
    dim: int
    project: Affine
    out: Affine | None
    bound: float


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's values in float64."""
    array: np.ndarray = tensor.detach().cpu().double().numpy()
    return array


def affine(linear: nn.Linear) -> Affine:
    """A linear layer's weight, transposed, and bias."""
    return to_numpy(linear.weight).T, to_numpy(linear.bias)


def fold_attention(layer: AarenAttention, norm: nn.LayerNorm) -> FoldedAttention:
    """Multiply out everything constant, see the module's text; `norm` is the layer's input norm."""
    heads, width = layer.heads, layer.width
    values, value_bias = affine(layer.value)
    out: Affine | None = affine(layer.out)
    if heads == 1 and out is not None:
        values, value_bias, out = values @ out[0], value_bias @ out[0] + out[1], None
    dim = width // heads
    query_weight, query_bias = affine(layer.query)
    query = (to_numpy(layer.query_token) @ query_weight + query_bias).reshape(heads, dim)
    keys = affine(layer.key)[0].reshape(width, heads, dim)
    scores = np.einsum("whd,hd->wh", keys, query) / np.sqrt(dim)  # as `score_projection`
    weight, bias = np.zeros((width, heads, dim + 2)), np.zeros((heads, dim + 2))
    weight[:, :, :dim] = values.reshape(width, heads, dim)
    bias[:, :dim] = value_bias.reshape(heads, dim)
    bias[:, dim] = 1
    weight[:, :, dim + 1], bias[:, dim + 1] = scores, -to_numpy(norm.bias) @ scores
    project = weight.reshape(width, -1), bias.reshape(-1)
    # A normed token has mean 0 and length sqrt(width), at most: the weights' mean has no effect.
    along = to_numpy(norm.weight)[:, None] * scores
    along -= along.mean(axis=0)
    bound = float(np.sqrt(width) * np.linalg.norm(along, axis=0).max())
    return FoldedAttention(heads, dim, project, out, bound)


def causal(tokens: int) -> np.ndarray:
    """The causal mask of the scores of (state, tokens), float32 `[tokens, tokens + 1]`."""
    return np.triu(np.full((tokens, tokens + 1), ABSENT, dtype=np.float32), k=2)


def recency_of_step(recency: np.ndarray, tokens: int) -> tuple[np.ndarray, np.ndarray]:
    """Recency as a bias of a chunk's scores, `[heads, tokens, 1]`, and of m, `[heads, 1]`."""
    before_last = np.arange(1 - tokens, 1)[:, None]
    added, taken = recency[:, None, None] * before_last, recency[:, None] * tokens
    return added.astype(np.float32), taken.astype(np.float32)


def attend_bounded(
    rows: Tensor, sums: Tensor, absent: Tensor | None, upto: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Update a state (w, u) by new tokens and read it after each, where no maximum is needed.

    Args:
        rows: `(v, 1, s)` of the new tokens, `[batch, heads, tokens, dim + 2]`, or with a single
            head `[batch, tokens, dim + 2]`, which takes fewer operations.
        sums: (w, u), `[batch, heads, dim + 1]`.
        absent: bias of the scores, `[batch, heads or 1, tokens, 1]` (without heads where `rows`
            has none): `ABSENT` for tokens that do not exist, and recency.
        upto: ones up to the diagonal, `[tokens, tokens]` (a product with it costs less than a
            cumulative sum); `None` to read after the last token only.

    Returns:
        Outputs `[batch, heads, tokens or 1, dim]` (without heads where `rows` has none) and the
        state after the last token, as `sums`.
    """
    values, scores = rows.split([rows.shape[-1] - 1, 1], dim=-1)
    weights = (scores if absent is None else scores + absent).exp()
    if upto is None:
        new = torch.matmul(weights.transpose(-1, -2), values)
    else:
        new = torch.matmul(upto, values * weights)
    after = _with_tokens(sums, rows) + new
    return _mean(after), _newest(after, sums)


def attend(
    rows: Tensor,
    sums: Tensor,
    maximum: Tensor,
    absent: Tensor | None,
    mask: Tensor,
    last_only: bool,
) -> tuple[Tensor, Tensor, Tensor]:
    """The same for scores of any size, with the state (w, u), m.

    Args:
        rows: as in `attend_bounded`.
        sums: as in `attend_bounded`.
        maximum: m, `[batch, heads, 1]`; `ABSENT` for the empty state.
        absent: as in `attend_bounded`.
        mask: `causal`, `[tokens, tokens + 1]`.
        last_only: read after the last token only.
    """
    values, scores = rows.split([rows.shape[-1] - 1, 1], dim=-1)
    scores = scores if absent is None else scores + absent
    scores = torch.cat([_with_tokens(maximum, rows), scores], dim=-2).transpose(-1, -2)
    scores = scores + (mask[-1:] if last_only else mask)
    highest = scores.amax(-1, keepdim=True)
    weights = torch.exp(scores - highest)
    after = torch.matmul(weights, torch.cat([_with_tokens(sums, rows), values], dim=-2))
    return _mean(after), _newest(after, sums), _newest(highest, maximum)


def _with_tokens(state: Tensor, rows: Tensor) -> Tensor:
    """A state `[batch, heads, size]` beside `rows`; a single head's axis serves for the tokens."""
    return state if rows.dim() == state.dim() else state.unsqueeze(-2)


def _mean(sums: Tensor) -> Tensor:
    weighted, normalizer = sums.split([sums.shape[-1] - 1, 1], dim=-1)
    return weighted / normalizer


def _newest(after: Tensor, before: Tensor) -> Tensor:
    """The inverse of `_with_tokens`, of the last token in `after`."""
    if after.dim() > before.dim():
        return after[..., -1, :]
    return after if after.shape[-2] == 1 else after[..., -1:, :]

"""An Aaren layer as acting wants it: what is constant there is multiplied out once, in float64.

Keys and query become one score vector a head (`AarenAttention.score_projection`). With one head the
output projection goes into the values: attention averages values, and a linear map of an average is
the average of the maps,

    W_o (sum_i p_i (W_v x_i + b_v)) + b_o = sum_i p_i (W_o W_v x_i + W_o b_v + b_o),  sum_i p_i = 1

so the state's weighted sum then lives in the output's space. With several heads that would need a
full width of values for each, so the projection stays.

The state of a layer is one tensor `[batch, heads, 1, dim + 2]`, `(w, u, m)` side by side, so that a
step is one product. Put before the layer's new rows `(v_j, 1, s_j)`, j = 0 .. n-1, with
M_i = max(m, s_0 .. s_i), it gives

    (w_i, u_i) = exp(m - M_i) (w, u) + sum_{j <= i} exp(s_j - M_i) (v_j, 1);      o_i = w_i / u_i

which is `aaren_rl.ops.recurrent` for n tokens at a time. What a token must not see has the score
`ABSENT`: later tokens, and where a sequence starts afresh also its old state.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.layers.aaren import AarenAttention

# Finite, and far below every score: exp(ABSENT - M) is 0, and a token that sees nothing (the
# previous action where an episode starts) gets finite numbers that nobody reads, not NaN.
ABSENT = -3e38
Affine = tuple[np.ndarray, np.ndarray]
"""Weight `[in, out]` and bias `[out]`, float64: `y = x @ weight + bias`."""


@dataclass(frozen=True)
class FoldedAttention:
    """One Aaren layer for acting.

    Attributes:
        heads: how many.
        dim: size of a head's value.
        project: tokens `[.., width]` to `[.., heads (dim + 2)]`: for each head its value, a one
            (which counts the weights, as the state's normalizer does) and its score.
        out: the output projection, `None` where it has gone into `project`.
    """

    heads: int
    dim: int
    project: Affine
    out: Affine | None


def to_numpy(tensor: Tensor) -> np.ndarray:
    """A tensor's values in float64."""
    array: np.ndarray = tensor.detach().cpu().double().numpy()
    return array


def affine(linear: nn.Linear) -> Affine:
    """A linear layer's weight, transposed, and bias."""
    return to_numpy(linear.weight).T, to_numpy(linear.bias)


def fold_attention(layer: AarenAttention) -> FoldedAttention:
    """Multiply out what acting need not compute again; see the module's text."""
    heads, width = layer.heads, layer.width
    values, value_bias = affine(layer.value)
    out: Affine | None = affine(layer.out)
    if heads == 1 and out is not None:
        values, value_bias, out = values @ out[0], value_bias @ out[0] + out[1], None
    dim = width // heads
    weight, bias = np.zeros((width, heads, dim + 2)), np.zeros((heads, dim + 2))
    weight[:, :, :dim] = values.reshape(width, heads, dim)
    bias[:, :dim] = value_bias.reshape(heads, dim)
    bias[:, dim] = 1
    weight[:, :, dim + 1], bias[:, dim + 1] = fold_scores(layer)
    return FoldedAttention(heads, dim, (weight.reshape(width, -1), bias.reshape(-1)), out)


def fold_scores(layer: AarenAttention) -> Affine:
    """`AarenAttention.score_projection` in float64: `[width, heads]` and `[heads]`."""
    heads, dim = layer.heads, layer.width // layer.heads
    query_weight, query_bias = affine(layer.query)
    query = (to_numpy(layer.query_token) @ query_weight + query_bias).reshape(heads, dim)
    query /= np.sqrt(dim)
    keys, key_bias = affine(layer.key)
    weight = np.einsum("whd,hd->wh", keys.reshape(layer.width, heads, dim), query)
    return weight, (key_bias.reshape(heads, dim) * query).sum(-1)


def visibility(tokens: int, first_may_miss: bool = False) -> np.ndarray:
    """What is added to the scores of state and tokens, for each token that reads them.

    Args:
        tokens: how many at a time.
        first_may_miss: as for a sequence that starts afresh and whose first token does not exist.

    Returns:
        float32 `[tokens, tokens + 1]`: zero or `ABSENT`.
    """
    mask = np.triu(np.full((tokens, tokens + 1), ABSENT, dtype=np.float32), k=2)
    if first_may_miss:
        mask[:, :2] = ABSENT
    return mask


def attend(rows: Tensor, state: Tensor, mask: Tensor, last_only: bool) -> tuple[Tensor, Tensor]:
    """Update a state by new tokens and read it after each of them.

    Args:
        rows: `(v, 1, s)` of the new tokens, `[batch, heads, tokens, dim + 2]`.
        state: `(w, u, m)`, `[batch, heads, 1, dim + 2]`; finite.
        mask: `visibility`, `[batch or 1, 1, tokens, tokens + 1]`.
        last_only: read after the last token alone.

    Returns:
        Outputs `[batch, heads, tokens or 1, dim]` and the state after the last token.
    """
    rows = torch.cat([state, rows], dim=2)
    scores = rows[..., -1].unsqueeze(2) + (mask[:, :, -1:] if last_only else mask)
    maximum = scores.amax(-1, keepdim=True)
    sums = torch.matmul(torch.exp(scores - maximum), rows[..., :-1])
    state = torch.cat([sums[:, :, -1:], maximum[:, :, -1:]], dim=-1)
    return sums[..., :-1] / sums[..., -1:], state

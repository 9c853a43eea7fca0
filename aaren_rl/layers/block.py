"""The one block that every sequence mixer sits in: GPT-2's, as in Decision Transformer."""

from __future__ import annotations

from typing import Any, Literal

from torch import Tensor, nn

from aaren_rl.layers.dropout import Dropout
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import EVERY_TOKEN, MixerState

Activation = Literal["relu", "gelu"]


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them.

    Args:
        width: size of a token.
        activation: between the two layers.
        out_std: standard deviation of the second layer's weights at the start.
    """

    def __init__(
        self, width: int, activation: Activation = "relu", *, out_std: float = STD
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width)
        self.activation = nn.ReLU() if activation == "relu" else nn.GELU(approximate="tanh")
        self.contract = nn.Linear(4 * width, width)
        self.out_std = out_std
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the weights as GPT-2 does."""
        start_linear(self.expand)
        start_linear(self.contract, self.out_std)

    def forward(self, x: Tensor) -> Tensor:
        """`[..., width]` to `[..., width]`."""
        out: Tensor = self.contract(self.activation(self.expand(x)))
        return out


class Block(nn.Module):
    """Norm first, residual after: x + drop(mix(norm(x))), then x + drop(feed_forward(norm(x))).

    Args:
        mixer: a module with `forward(x, state, mask, read, cu_seqlens) -> (y, state)`; the only
            part in which a Transformer and an Aaren block differ.
        width: size of a token.
        dropout: share of each residual branch's elements dropped in training.
        activation: of the feed-forward part; Decision Transformer uses ReLU.
        out_std: standard deviation, at the start, of the feed-forward part's weights that write to
            the residual stream.
    """

    def __init__(
        self,
        mixer: nn.Module,
        width: int,
        *,
        dropout: float = 0.1,
        activation: Activation = "relu",
        out_std: float = STD,
    ) -> None:
        super().__init__()
        self.mixer_norm = nn.LayerNorm(width)
        self.mixer = mixer
        self.feed_forward_norm = nn.LayerNorm(width)
        self.feed_forward = FeedForward(width, activation, out_std=out_std)
        self.dropout = Dropout(dropout)

    def forward(
        self,
        x: Tensor,
        state: Any = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, MixerState]:
        """Tokens `[batch, time, width]` and a state in, those of the tokens in `read` out."""
        mixed, state = self.mixer(self.mixer_norm(x), state, mask, read, cu_seqlens)
        x = x[:, read] + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), state

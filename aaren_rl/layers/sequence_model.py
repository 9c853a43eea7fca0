"""A sequence model: a stack of blocks, GPT-2's as in Decision Transformer, around the mixers."""

from __future__ import annotations

import inspect
import math
from typing import Any, Literal

from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers.dropout import Dropout
from aaren_rl.layers.mixers import aaren, attention, lstm, min_gru  # noqa: F401  (they register)
from aaren_rl.layers.mixers.base import MIXERS
from aaren_rl.layers.start import STD, start_linear
from aaren_rl.layers.state import EVERY_TOKEN, SequenceState

__all__ = ["MIXERS", "Block", "FeedForward", "SequenceModel"]


Activation = Literal["relu", "gelu"]


def make_activation(name: Activation) -> nn.Module:
    """ReLU, or GELU in its tanh approximation, as in GPT-2."""
    return nn.ReLU() if name == "relu" else nn.GELU(approximate="tanh")


class FeedForward(nn.Module):
    """Two linear layers, four times as wide between them; the second starts at `out_std`."""

    def __init__(
        self, width: int, activation: Activation = "relu", *, out_std: float = STD
    ) -> None:
        super().__init__()
        self.expand = nn.Linear(width, 4 * width)
        self.activation = make_activation(activation)
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
        mixer: see `aaren_rl.layers.mixers.base`; the only part in which agents differ.
        width: size of a token.
        dropout: share of each residual branch's elements dropped in training.
        activation: of the feed-forward part; Decision Transformer uses ReLU.
        out_std: standard deviation, at the start, of the feed-forward weights that write to the
            residual stream.
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
    ) -> tuple[Tensor, Any]:
        """Tokens `[batch, time, width]` and a state in, those of the tokens in `read` out."""
        mixed, state = self.mixer(self.mixer_norm(x), state, mask, read, cu_seqlens)
        x = x[:, read] + self.dropout(mixed)
        return x + self.dropout(self.feed_forward(self.feed_forward_norm(x))), state


class SequenceModel(nn.Module):
    """`layers` blocks of one kind of mixer and a last norm.

    Args:
        mixer: a name in `aaren_rl.layers.MIXERS`.
        width: size of a token.
        layers: number of blocks.
        dropout: share of each residual branch's elements dropped in training.
        activation: of the feed-forward parts.
        options: of the mixer, such as `heads`; see the dataclass that it was registered with.

    Raises:
        UserError: for an unknown mixer or option.
    """

    def __init__(
        self,
        mixer: str,
        width: int,
        *,
        layers: int = 3,
        dropout: float = 0.1,
        activation: Activation = "relu",
        **options: Any,
    ) -> None:
        super().__init__()
        self.width = width
        # Every block adds two branches to the residual stream. With weights smaller by
        # sqrt(2 layers) its variance at the start does not grow with the number of blocks (GPT-2).
        out_std = STD / math.sqrt(2 * layers)
        make, arguments = MIXERS[mixer].make, MIXERS.options(mixer, options)
        if "out_std" in inspect.signature(make).parameters:
            arguments["out_std"] = out_std
        self.blocks = nn.ModuleList(
            Block(
                make(width, **arguments),
                width,
                dropout=dropout,
                activation=activation,
                out_std=out_std,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    @property
    def slides(self) -> bool:
        """Whether the mixers' state can be cut, see `layers.mixers.base`."""
        return all(getattr(block.mixer, "slides", False) for block in self.blocks)

    @property
    def state_types(self) -> list[type]:
        """The class of each layer's state."""
        return [block.mixer.state_type for block in self.blocks]  # type: ignore[union-attr, misc]

    def forward(
        self,
        x: Tensor,
        state: SequenceState | None = None,
        mask: Tensor | None = None,
        read: slice = EVERY_TOKEN,
        cu_seqlens: Tensor | None = None,
    ) -> tuple[Tensor, SequenceState]:
        """Run any number of tokens.

        Args:
            x: tokens `[batch, time, width]`.
            state: what an earlier call returned; `None` at the start of the sequences.
            mask: bool `[batch, time]`; a token where it is false leaves no trace in the state.
            read: the tokens whose outputs are wanted; for the others the last block is spared.
            cu_seqlens: for a packed batch, the cumulated lengths.

        Returns:
            Outputs `[batch, tokens in read, width]` and the state after the last token.

        Raises:
            UserError: for the state of another model.
        """
        if state is not None and len(state.layers) != len(self.blocks):
            raise UserError(
                f"a state of {len(self.blocks)} layers expected, got one of {len(state.layers)}: "
                "another model's?"
            )
        states = []
        last = len(self.blocks) - 1
        for index, block in enumerate(self.blocks):
            wanted = read if index == last else EVERY_TOKEN
            x, layer = block(
                x, None if state is None else state.layers[index], mask, wanted, cu_seqlens
            )
            states.append(layer)
        return self.norm(x), SequenceState(tuple(states))

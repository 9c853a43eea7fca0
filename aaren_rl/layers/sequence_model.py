"""A stack of blocks: long calls without a state for training, short ones with it for acting."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers.aaren import AarenAttention
from aaren_rl.layers.attention import CausalSelfAttention
from aaren_rl.layers.block import Activation, Block
from aaren_rl.layers.lstm import LSTMMixer
from aaren_rl.layers.min_gru import MinGRUMixer
from aaren_rl.layers.state import EVERY_TOKEN, SequenceState


class MixerOptions(NamedTuple):
    """What a mixer may be told; each takes what concerns it."""

    width: int
    heads: int
    attention_dropout: float
    dilution: float
    recency: tuple[float, ...]


# A new mixer is one file and one line here.
MIXERS: dict[str, Callable[[MixerOptions], nn.Module]] = {
    "aaren": lambda its: AarenAttention(
        its.width, its.heads, dilution=its.dilution, recency=its.recency
    ),
    "attention": lambda its: CausalSelfAttention(
        its.width, its.heads, dropout=its.attention_dropout
    ),
    "lstm": lambda its: LSTMMixer(its.width),
    "min-gru": lambda its: MinGRUMixer(its.width),
}


class SequenceModel(nn.Module):
    """`layers` blocks of one kind of mixer and a last norm.

    Args:
        mixer: a name in `MIXERS`.
        width: size of a token.
        layers: number of blocks.
        heads: heads of each mixer.
        dropout: share of each residual branch's elements dropped in training.
        attention_dropout: share of attention weights dropped, where the mixer has such weights.
        dilution: see `AarenAttention`; other mixers have none.
        activation: of the feed-forward parts.
        recency: how fast each head forgets, where the mixer can; see `AarenAttention`.

    Raises:
        KeyError: for an unknown mixer.
    """

    def __init__(
        self,
        mixer: str,
        width: int,
        *,
        layers: int = 3,
        heads: int = 1,
        dropout: float = 0.1,
        attention_dropout: float = 0.0,
        dilution: float = 1.0,
        activation: Activation = "relu",
        recency: tuple[float, ...] = (),
    ) -> None:
        super().__init__()
        if mixer not in MIXERS:
            raise KeyError(f"unknown mixer {mixer!r}; expected one of {sorted(MIXERS)}")
        self.width = width
        options = MixerOptions(width, heads, attention_dropout, dilution, recency)
        self.blocks = nn.ModuleList(
            Block(MIXERS[mixer](options), width, dropout=dropout, activation=activation)
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)
        self._initialise()

    @property
    def state_types(self) -> list[type]:
        """The class of each layer's state."""
        return [block.mixer.state_type for block in self.blocks]  # type: ignore[union-attr, misc]

    def _initialise(self) -> None:
        """GPT-2's: normal with sd 0.02, and smaller where a branch joins the residual stream."""
        for name, parameter in self.named_parameters():
            if ".lstm." in name:
                continue  # it has its own
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            elif name.endswith(("mixer.out.weight", "contract.weight")):
                nn.init.normal_(parameter, std=0.02 / math.sqrt(2 * len(self.blocks)))
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)

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
            cu_seqlens: for a packed batch (`aaren_rl.layers.packed`), the cumulated lengths.

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

"""A stack of blocks: long calls without a state for training, short ones with it for acting."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers.block import Activation, Block
from aaren_rl.layers.mixers.aaren import AarenAttention
from aaren_rl.layers.mixers.attention import CausalSelfAttention
from aaren_rl.layers.mixers.lstm import LSTMMixer
from aaren_rl.layers.mixers.min_gru import MinGRUMixer
from aaren_rl.layers.start import residual_std
from aaren_rl.layers.state import EVERY_TOKEN, SequenceState


class MixerOptions(NamedTuple):
    """What a mixer may be told; each takes what concerns it.

    A mixer draws its own weights in its constructor (`reset_parameters`); nobody else touches
    them. `out_std` is for the weights that write to the residual stream.
    """

    width: int
    heads: int
    attention_dropout: float
    dilution: float
    recency: tuple[float, ...]
    out_std: float


# A new mixer is one file and one line here.
MIXERS: dict[str, Callable[[MixerOptions], nn.Module]] = {
    "aaren": lambda options: AarenAttention(
        options.width,
        options.heads,
        dilution=options.dilution,
        recency=options.recency,
        out_std=options.out_std,
    ),
    "attention": lambda options: CausalSelfAttention(
        options.width,
        options.heads,
        dropout=options.attention_dropout,
        out_std=options.out_std,
    ),
    "lstm": lambda options: LSTMMixer(options.width, out_std=options.out_std),
    "min-gru": lambda options: MinGRUMixer(options.width, out_std=options.out_std),
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
        out_std = residual_std(layers)
        options = MixerOptions(width, heads, attention_dropout, dilution, recency, out_std)
        self.blocks = nn.ModuleList(
            Block(
                MIXERS[mixer](options),
                width,
                dropout=dropout,
                activation=activation,
                out_std=out_std,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

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

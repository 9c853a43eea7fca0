"""A stack of blocks: long calls without a state for training, short ones with it for acting."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from aaren_rl.errors import UserError
from aaren_rl.layers.block import Activation, Block
from aaren_rl.layers.mixers import aaren, attention, lstm, min_gru  # noqa: F401  (they register)
from aaren_rl.layers.mixers.base import MIXERS, make_mixer
from aaren_rl.layers.start import residual_std
from aaren_rl.layers.state import EVERY_TOKEN, SequenceState

__all__ = ["MIXERS", "SequenceModel"]


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
        out_std = residual_std(layers)
        self.blocks = nn.ModuleList(
            Block(
                make_mixer(mixer, width, out_std, options),
                width,
                dropout=dropout,
                activation=activation,
                out_std=out_std,
            )
            for _ in range(layers)
        )
        self.norm = nn.LayerNorm(width)

    def can(self, capability: str) -> bool:
        """Whether all mixers have a capability, `slides` or `folds`; see `layers.mixers.base`."""
        return all(getattr(block.mixer, capability, False) for block in self.blocks)

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

"""What a sequence model carries from one call to the next."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

EVERY_TOKEN = slice(None)
S = TypeVar("S", bound="MixerState")


class MixerState(Protocol):
    """The past of one mixing layer, for a batch of sequences. A value: never mutated."""

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors together."""
        ...

    def reset(self: S, mask: Tensor) -> S:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        ...

    def detach(self: S) -> S:
        """The same values, cut off from the graph: truncated back-propagation through time."""
        ...

    def __getitem__(self: S, index: Any) -> S:
        """The state of some of the sequences; `index` selects over the batch."""
        ...


@dataclass(frozen=True)
class SequenceState:
    """The states of all layers of a `SequenceModel`, first layer first."""

    layers: tuple[MixerState, ...]

    @property
    def nbytes(self) -> int:
        """Bytes of all layers' states together."""
        return sum(layer.nbytes for layer in self.layers)

    def reset(self, mask: Tensor) -> SequenceState:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        return SequenceState(tuple(layer.reset(mask) for layer in self.layers))

    def detach(self) -> SequenceState:
        """The same values, cut off from the graph."""
        return SequenceState(tuple(layer.detach() for layer in self.layers))

    def last(self, count: int) -> SequenceState:
        """Only the last `count` tokens, for mixers that `slide`."""
        return SequenceState(tuple(layer.last(count) for layer in self.layers))  # type: ignore[attr-defined]

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, `LAYER.FIELD`, to be saved."""
        return {
            f"{number}.{field.name}": getattr(layer, field.name)
            for number, layer in enumerate(self.layers)
            for field in fields(layer)  # type: ignore[arg-type]  # every state is a dataclass
            if getattr(layer, field.name) is not None
        }

    @staticmethod
    def from_tensors(kinds: Sequence[type], tensors: dict[str, Tensor]) -> SequenceState:
        """The inverse of `tensors`; `kinds` are the layers' state classes."""
        layers = []
        for number, kind in enumerate(kinds):
            prefix = f"{number}."
            own = {
                name.removeprefix(prefix): tensor
                for name, tensor in tensors.items()
                if name.startswith(prefix)
            }
            layers.append(kind(**own))
        return SequenceState(tuple(layers))

    def __getitem__(self, index: Tensor | slice | Sequence[int]) -> SequenceState:
        """The state of some of the sequences; `index` selects over the batch."""
        return SequenceState(tuple(layer[index] for layer in self.layers))


def check_mask(x: Tensor, mask: Tensor | None) -> None:
    """Raise `ValueError` unless `mask` is `None` or bool `[batch, time]` of `x`."""
    if mask is not None and (mask.shape != x.shape[:2] or mask.dtype != torch.bool):
        raise ValueError(
            f"mask must be bool {list(x.shape[:2])} (batch, time), "
            f"got {mask.dtype} {list(mask.shape)}"
        )

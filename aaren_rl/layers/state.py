"""The states that mixers and sequence models carry from one call to the next."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any, TypeVar

import torch
from torch import Tensor

EVERY_TOKEN = slice(None)
S = TypeVar("S", bound="TensorState")


@dataclass(frozen=True)
class TensorState:
    """Base class for states: a frozen dataclass whose fields are tensors `[batch, ...]` or `None`.

    The empty past is zero in every field; a subclass for which it is something else overrides
    `reset`.
    """

    def _each(self: S, change: Callable[[Tensor], Tensor]) -> S:
        tensors = {field.name: getattr(self, field.name) for field in fields(self)}
        return replace(self, **{n: None if t is None else change(t) for n, t in tensors.items()})

    @property
    def nbytes(self) -> int:
        """Bytes of all its tensors together."""
        tensors = (getattr(self, field.name) for field in fields(self))
        return sum(tensor.nbytes for tensor in tensors if tensor is not None)

    def reset(self: S, mask: Tensor) -> S:
        """Forget everything in the sequences where `mask` (`[batch]`, bool) is true."""
        return self._each(lambda t: t.masked_fill(mask.view(-1, *[1] * (t.dim() - 1)), 0))

    def detach(self: S) -> S:
        """The same values, cut off from the graph."""
        return self._each(Tensor.detach)

    def __getitem__(self: S, index: Any) -> S:
        """The states of some of the sequences."""
        return self._each(lambda tensor: tensor[index])

    def where(self: S, mask: Tensor, other: S) -> S:
        """This state in the sequences where `mask` (`[batch]`, bool) is true, else `other`."""
        pairs = {f.name: (getattr(self, f.name), getattr(other, f.name)) for f in fields(self)}
        return replace(
            self,
            **{
                name: torch.where(mask.view(-1, *[1] * (mine.dim() - 1)), mine, others)
                for name, (mine, others) in pairs.items()
                if mine is not None
            },
        )


@dataclass(frozen=True)
class HiddenState(TensorState):
    """Hidden vectors `[batch, vectors, width]`: one for a minGRU, hidden and cell for an LSTM."""

    vectors: Tensor


@dataclass(frozen=True)
class SequenceState:
    """The states of all layers of a `SequenceModel`, first layer first."""

    layers: tuple[Any, ...]

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
        return SequenceState(tuple(layer.last(count) for layer in self.layers))

    def tensors(self) -> dict[str, Tensor]:
        """All tensors by name, `LAYER.FIELD`, to be saved."""
        return {
            f"{number}.{field.name}": getattr(layer, field.name)
            for number, layer in enumerate(self.layers)
            for field in fields(layer)
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

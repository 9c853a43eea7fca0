"""The state of the recurrent mixers: vectors of constant size, zero at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor


@dataclass(frozen=True)
class HiddenState:
    """Hidden vectors `[batch, vectors, width]`: one for a minGRU, hidden and cell for an LSTM."""

    vectors: Tensor

    @property
    def nbytes(self) -> int:
        """Bytes of the vectors."""
        return self.vectors.nbytes

    def reset(self, mask: Tensor) -> HiddenState:
        """Zero in the sequences where `mask` (`[batch]`, bool) is true."""
        return HiddenState(self.vectors.masked_fill(mask[:, None, None], 0))

    def detach(self) -> HiddenState:
        """The same values, cut off from the graph."""
        return HiddenState(self.vectors.detach())

    def __getitem__(self, index: Any) -> HiddenState:
        """The states of some of the sequences."""
        return HiddenState(self.vectors[index])

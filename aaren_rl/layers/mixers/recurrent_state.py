"""The state of the recurrent mixers: vectors of constant size, zero at the start."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

LONGEST_SPAN = 1000  # tokens


def keep_biases(width: int) -> Tensor:
    """Biases at which gates keep what was written for 2 to 1,000 tokens, drawn uniformly.

    A gate sigmoid(b) keeps for about exp(b) + 1 tokens: chrono initialisation, Tallec and Ollivier
    2018. With gates that begin at a half, no gradient reaches what was seen a hundred tokens ago
    (docs/memory.md has both).

    Returns:
        float `[width]`.
    """
    return torch.empty(width).uniform_(1, LONGEST_SPAN - 1).log()


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

"""Tables of choices, and the sum of several parts: for observations and actions alike."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


class ChoiceTables(nn.Module):
    """The sum of a table's row for each choice, of `levels` choices each.

    The rows start as large as the terms of a linear layer of as many standardised numbers, so that
    summed embeddings of numbers and of choices have the same weight.
    """

    first: Tensor
    last: Tensor

    def __init__(self, levels: Sequence[int], width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(sum(levels), width)
        reach = 1 / math.sqrt(len(levels))
        nn.init.uniform_(self.table.weight, -reach, reach)
        sizes = torch.tensor(levels)
        self.register_buffer("first", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("last", sizes - 1, persistent=False)

    def forward(self, choices: Tensor) -> Tensor:
        """Choices counted from 0, `[..., choices]` of any dtype, to `[..., width]`."""
        rows = choices.long().clamp(min=0).minimum(self.last) + self.first
        out: Tensor = self.table(rows).sum(-2)
        return out


class Summed(nn.Module):
    """The sum of several modules, each of its own columns `[..., size]`."""

    def __init__(self, modules: list[nn.Module], sizes: list[int]) -> None:
        super().__init__()
        self.parts, self.sizes = nn.ModuleList(modules), sizes

    def forward(self, columns: Tensor) -> Tensor:
        """`[..., sum of sizes]` to `[..., width]`."""
        given = columns.split(self.sizes, dim=-1)
        first, *others = (part(each) for part, each in zip(self.parts, given, strict=True))
        total: Tensor = sum(others, start=first)
        return total

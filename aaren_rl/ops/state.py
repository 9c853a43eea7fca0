"""The recurrent state of prefix attention and the operator that joins two states.

The state of a set of tokens with scores `s_i` and values `v_i` is, per batch row and head,

    m = max s_i,    u = sum exp(s_i - m),    w = sum exp(s_i - m) v_i

(Feng et al. 2024, *Attention as an RNN*, arXiv 2405.13956, section 3.2). The empty set is
`(-inf, 0, 0)`. The triple is a state up to a gauge: `(m + c, u e^-c, w e^-c)` stands for the same
set, so only `w / u` and `m + log u` have a meaning of their own.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
import torch.export
from torch import Tensor
from torch.autograd import forward_ad

from aaren_rl.errors import UserError

Terms = tuple[Tensor, Tensor, Tensor]
"""`(m, u, w)`: `m` and `u` of one shape, `w` with one more axis at the end."""


def finite_floor(maximum: Tensor) -> Tensor:
    """Replace -inf by the lowest finite number, so that `-inf - floor` is -inf and never NaN."""
    return maximum.clamp_min(torch.finfo(maximum.dtype).min)


def merge_terms(first: Terms, second: Terms) -> Terms:
    """Join the states of two disjoint sets of tokens (the paper's associative operator).

    The shapes are `(m [...], u [...], w [..., dim])` and may broadcast. Every exponent is <= 0, and
    empty sets stay empty.
    """
    maximum = torch.maximum(first[0], second[0])
    floor = finite_floor(maximum)
    scale_first = torch.exp(first[0] - floor)
    scale_second = torch.exp(second[0] - floor)
    normalizer = first[1] * scale_first + second[1] * scale_second
    weighted_sum = first[2] * scale_first[..., None] + second[2] * scale_second[..., None]
    return maximum, normalizer, weighted_sum


def fix_gauge(terms: Terms) -> Terms:
    """Move the gradient of `m` into `u` and `w`: same numbers, `m` detached.

    The value of a state does not depend on its gauge, so a computation may treat `m` as a
    constant wherever `u` and `w` carry the factor `exp(m - m.detach())`.
    """
    maximum, normalizer, weighted_sum = terms
    constant = maximum.detach()
    if not (maximum.requires_grad or is_transformed()):
        return terms
    floor = finite_floor(constant)
    factor = torch.exp(finite_floor(maximum) - floor)
    return constant, normalizer * factor, weighted_sum * factor[..., None]


def divide(weighted_sum: Tensor, normalizer: Tensor) -> Tensor:
    """`w / u`, `[..., dim]`, and 0 (with zero gradients) where u, `[...]`, is 0: the empty set."""
    safe = torch.where(normalizer == 0, 1.0, normalizer)
    return weighted_sum / safe[..., None]


def state_dtype(scores: Tensor, values: Tensor) -> torch.dtype:
    """Dtype of the state: float64 where one of the inputs is float64, else float32."""
    double = torch.float64
    return double if scores.dtype == double or values.dtype == double else torch.float32


def is_transformed() -> bool:
    """Whether `torch.func` or forward-mode differentiation is under way.

    Both hide from `requires_grad` what they differentiate.
    """
    if torch.compiler.is_compiling():
        return False
    return torch._C._are_functorch_transforms_active() or forward_ad._current_level >= 0


def needs_grad(scores: Tensor, values: Tensor, state: PrefixState | None) -> bool:
    """Whether autograd must follow a computation on these tensors."""
    if is_transformed():
        return True
    if not torch.is_grad_enabled():
        return False
    terms = () if state is None else state.terms
    return any(tensor.requires_grad for tensor in (scores, values, *terms))


@dataclass(frozen=True)
class PrefixState:
    """Everything that prefix attention remembers of the tokens so far; its size is constant.

    Attributes:
        maximum: m, `[batch, heads]`, the highest score so far (-inf for the empty set).
        normalizer: u, `[batch, heads]`, the sum of `exp(score - m)`.
        weighted_sum: w, `[batch, heads, dim]`, the sum of `exp(score - m) * value`.

    All three have one dtype: float32, or float64 where the inputs are float64, whatever the
    dtype of the computation around it. `maximum` of a final state carries no gradient; gradients
    flow through the other two, which is exact for every use by `output` and `log_normalizer`.
    """

    maximum: Tensor
    normalizer: Tensor
    weighted_sum: Tensor

    @staticmethod
    def empty(
        batch: int,
        heads: int,
        dim: int,
        *,
        device: torch.device | str | None = None,
        dtype: torch.dtype = torch.float32,
    ) -> PrefixState:
        """Return the state of no tokens: `(-inf, 0, 0)`."""
        return PrefixState(
            torch.full((batch, heads), -torch.inf, device=device, dtype=dtype),
            torch.zeros((batch, heads), device=device, dtype=dtype),
            torch.zeros((batch, heads, dim), device=device, dtype=dtype),
        )

    @property
    def terms(self) -> Terms:
        """`(m, u, w)` as a plain tuple."""
        return self.maximum, self.normalizer, self.weighted_sum

    @property
    def nbytes(self) -> int:
        """Number of bytes of the three tensors' elements."""
        return sum(term.numel() * term.element_size() for term in self.terms)

    def merge(self, other: PrefixState) -> PrefixState:
        """Return the state of both sets of tokens together (associative and commutative).

        Raises:
            UserError: the two states differ in shape.
        """
        if self.weighted_sum.shape != other.weighted_sum.shape:
            raise UserError(
                f"PrefixState.merge: states of one shape [batch, heads, dim] expected, got "
                f"{list(self.weighted_sum.shape)} and {list(other.weighted_sum.shape)}"
            )
        return PrefixState(*merge_terms(self.terms, other.terms))

    def reset(self, mask: Tensor) -> PrefixState:
        """The state with the batch rows where `mask` (bool `[batch]`) is true made empty.

        Raises:
            UserError: `mask` is not one bool per batch row.
        """
        batch = self.maximum.shape[0]
        if mask.dtype != torch.bool or mask.shape != (batch,):
            raise UserError(
                f"PrefixState.reset: a bool mask of shape [{batch}] expected, got "
                f"{mask.dtype} {list(mask.shape)}"
            )
        row = mask[:, None]
        return PrefixState(
            self.maximum.masked_fill(row, -torch.inf),
            self.normalizer.masked_fill(row, 0.0),
            self.weighted_sum.masked_fill(row[..., None], 0.0),
        )

    def __getitem__(self, index: Any) -> PrefixState:
        """Index the batch axis; an int keeps the axis, with one row."""
        if isinstance(index, int):
            batch = self.maximum.shape[0]
            if not -batch <= index < batch:
                raise IndexError(f"row {index} of a PrefixState of {batch} rows")
            index = slice(index, index + 1 if index != -1 else None)
        return PrefixState(*(term[index] for term in self.terms))

    def to(
        self, device: torch.device | str | None = None, dtype: torch.dtype | None = None
    ) -> PrefixState:
        """Move to a device, a dtype or both."""
        return PrefixState(*(term.to(device=device, dtype=dtype) for term in self.terms))

    def detach(self) -> PrefixState:
        """Cut the gradient: the same numbers as constants."""
        return PrefixState(*(term.detach() for term in self.terms))

    def output(self) -> Tensor:
        """Attention over the tokens so far, `w / u`, `[batch, heads, dim]`; 0 for no tokens."""
        return divide(self.weighted_sum, self.normalizer)

    def log_normalizer(self) -> Tensor:
        """Log-sum-exp of the scores so far, `m + log u`, `[batch, heads]`; -inf for no tokens."""
        present = self.normalizer > 0
        safe = torch.where(present, self.normalizer, 1.0)
        return torch.where(present, self.maximum + safe.log(), -torch.inf)


# So that states may be arguments and results of exported programs.
torch.export.register_dataclass(PrefixState, serialized_type_name="aaren_rl.PrefixState")

"""Inputs for prefix attention, and the check against the float64 definition."""

from __future__ import annotations

import os
from dataclasses import dataclass
from functools import cache

import torch
from torch import Tensor

from aaren_rl.ops import PrefixState, available_backends, prefix_attention

PATTERNS = ("plain", "near", "apart", "rising", "falling", "start", "middle", "nothing")
LENGTHS = (1, 2, 31, 64, 65, 1000)
BATCH, HEADS, DIM = 2, 2, 5
INTERPRETED = os.environ.get("TRITON_INTERPRET") == "1"
BACKENDS = tuple(name for name in available_backends() if name != "triton" or INTERPRETED)
"""Backends that run on CPU tensors."""
DOUBLE_BACKENDS = tuple(name for name in BACKENDS if name != "triton")
"""Those of them that take float64."""


@dataclass(frozen=True)
class Case:
    """Inputs and upstream gradients of one call."""

    scores: Tensor
    values: Tensor
    initial: PrefixState | None
    d_outputs: Tensor
    d_state_output: Tensor
    d_log_normalizer: Tensor


def make_scores(pattern: str, length: int, generator: torch.Generator) -> Tensor:
    """Scores `[BATCH, length, HEADS]` in float64."""
    shape = (BATCH, length, HEADS)
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    ramp = torch.linspace(-1e4, 1e4, length, dtype=torch.float64)[:, None]
    if pattern == "near":  # close together, far from 0: L = m + log u as one float32 fails here
        return 1e4 + noise
    if pattern == "apart":
        return 1e4 * (2 * torch.rand(shape, generator=generator, dtype=torch.float64) - 1)
    if pattern == "rising":  # every prefix lies far below a later maximum
        return ramp + noise
    if pattern == "falling":
        return -ramp + noise
    if pattern == "start":
        noise[:, : (length + 1) // 2] = -torch.inf
    if pattern == "middle":
        noise[0, length // 3 : length // 3 + 1 + length // 2, 0] = -torch.inf
        noise[1, 1::2] = -torch.inf
    if pattern == "nothing":
        noise[:] = -torch.inf
        noise[1, :, 1] = 0.0
    return noise


def make_initial(pattern: str, generator: torch.Generator) -> PrefixState:
    """A state of a few tokens in float32; one head of it is empty."""
    scores = make_scores("plain" if pattern in ("start", "nothing") else pattern, 3, generator)
    values = torch.randn(BATCH, 3, HEADS, DIM, generator=generator, dtype=torch.float64)
    scores[0, :, 1] = -torch.inf
    _, state = prefix_attention(scores.float(), values.float(), backend="recurrent")
    return state


@cache
def make_case(pattern: str, length: int, dtype: torch.dtype, with_state: bool) -> Case:
    """Draw a case; the same arguments give the same case."""
    generator = torch.Generator().manual_seed(1000 * length + PATTERNS.index(pattern))
    shape = (BATCH, length, HEADS, DIM)

    def normal(*size: int) -> Tensor:
        return torch.randn(size, generator=generator, dtype=torch.float64)

    return Case(
        scores=make_scores(pattern, length, generator).to(dtype),
        values=normal(*shape).to(dtype),
        initial=make_initial(pattern, generator) if with_state else None,
        d_outputs=normal(*shape).to(dtype),
        d_state_output=normal(BATCH, HEADS, DIM).float(),
        d_log_normalizer=normal(BATCH, HEADS).float(),
    )


@dataclass(frozen=True)
class Result:
    """What one call gives: outputs, the final state in its gauge-free form, and gradients."""

    outputs: Tensor
    state_output: Tensor
    log_normalizer: Tensor
    d_scores: Tensor
    d_values: Tensor
    d_initial: tuple[Tensor, ...]


def run_case(
    case: Case, backend: str, dtype: torch.dtype | None = None, device: str = "cpu"
) -> Result:
    """Run forward and backward on a device; `dtype` converts all inputs first."""

    def leaf(tensor: Tensor) -> Tensor:
        return tensor.detach().to(device, dtype or tensor.dtype).requires_grad_()

    scores, values = leaf(case.scores), leaf(case.values)
    terms = () if case.initial is None else tuple(leaf(term) for term in case.initial.terms)
    outputs, state = prefix_attention(
        scores, values, initial_state=PrefixState(*terms) if terms else None, backend=backend
    )
    results = [outputs, state.output(), state.log_normalizer()]
    upstream = [case.d_outputs, case.d_state_output, case.d_log_normalizer]
    gradients = torch.autograd.grad(
        results, [scores, values, *terms], [d.to(r) for d, r in zip(upstream, results, strict=True)]
    )
    found = [tensor.detach().cpu() for tensor in (*results, *gradients)]
    return Result(*found[:5], tuple(found[5:]))


@cache
def expected(pattern: str, length: int, dtype: torch.dtype, with_state: bool) -> Result:
    """The definition's result, all of it in float64."""
    case = make_case(pattern, length, dtype, with_state)
    return run_case(case, "reference", torch.float64)


def assert_close(result: Result, wanted: Result, case: Case) -> None:
    """Compare with tolerances of a few rounding errors of the dtype that was computed in.

    A sum of n terms, one after the other, may be off by n / 2 units of rounding (6e-8 n).
    A gradient to the scores is a difference, `p (v . R - c)`: its error is measured by the size
    of the two terms, not by that of the difference.
    """
    low = case.values.dtype == torch.bfloat16
    state_error = 2e-6 + 6e-8 * case.scores.shape[1]  # float32 whatever the inputs are
    # Triton's interpreter cuts bfloat16 off where the GPU rounds.
    output_error = 2.0 ** (-7 if INTERPRETED else -8) if low else state_error
    gradient_error = 2.0**-6 if low else 1e-5

    _near(result.outputs, wanted.outputs, output_error, "outputs")
    _near(result.state_output, wanted.state_output, state_error, "state output")
    _near(result.log_normalizer, wanted.log_normalizer, state_error / 5, "log normalizer")
    scale = 1.0 + float(wanted.d_values.abs().max())
    _near(result.d_values, wanted.d_values, gradient_error, "d values", scale)
    reach = scale * float(case.values.abs().max())
    _near(result.d_scores, wanted.d_scores, gradient_error, "d scores", reach)
    for name, got, want in zip("muw", result.d_initial, wanted.d_initial, strict=False):
        size = reach * (1.0 + float(want.abs().max()))
        _near(got, want, gradient_error, f"d initial {name}", size)


def _near(got: Tensor, want: Tensor, error: float, name: str, scale: float = 1.0) -> None:
    """`|got - want| <= error * (scale + |want|)`; equal where `want` is not finite."""
    torch.testing.assert_close(
        got.double(), want, rtol=error, atol=error * scale, msg=lambda m: f"{name}: {m}"
    )

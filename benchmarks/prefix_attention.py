"""Speed and memory of prefix attention, forward + backward, beside its rivals.

    python -m benchmarks.prefix_attention [--help]

All candidates compute the same function: the rivals' query is a fixed vector, so that causal
softmax attention is prefix attention with `scores = keys . query / sqrt(dim)`. A candidate whose
outputs or gradients differ from the float64 definition gets no speed.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field
from importlib import import_module
from importlib.util import find_spec
from typing import Any

import torch
import tyro
from rich.console import Console
from rich.table import Table
from torch import Tensor
from torch.nn.functional import scaled_dot_product_attention

from aaren_rl.ops import available_backends, prefix_attention
from aaren_rl.training.allocator import keep_freed_memory
from benchmarks.timing import (
    Timing,
    describe_machine,
    growth_exponent,
    peak_memory,
    save,
    take_turns,
)

DIM = 128
CHECKED = 1500  # tokens on which a candidate is compared with the definition
SDPA_LIMIT = 10_000  # longest sequence on which the quadratic rival is run
SEQUENTIAL_LIMIT = 100
BARS = {"short": {"sdpa": 1 / 4}, "long": {"sdpa": 1 / 60, "copy": 10.0}}


@dataclass(frozen=True)
class Problem:
    """Leaves of one call: `[batch, time, 1]` and `[batch, time, 1, dim]`."""

    query: Tensor
    keys: Tensor
    scores: Tensor
    values: Tensor
    gradient: Tensor

    @staticmethod
    def draw(batch: int, time: int, dtype: torch.dtype, device: str) -> Problem:
        """Standard normal keys, values and gradients; the same arguments give the same ones."""
        generator = torch.Generator().manual_seed(0)
        keys, values, gradient = (
            torch.randn(batch, time, 1, DIM, generator=generator) for _ in range(3)
        )
        query = torch.randn(DIM, generator=generator)
        keys, query = keys.to(dtype), query.to(dtype)
        scores = (keys.double() @ query.double() / math.sqrt(DIM)).to(dtype)
        leaves = (query, keys, scores, values.to(dtype), gradient.to(dtype))
        return Problem(*(leaf.to(device).requires_grad_() for leaf in leaves))

    def first(self, tokens: int) -> Problem:
        """The problem cut short."""
        cut = (self.keys, self.scores, self.values, self.gradient)
        return Problem(self.query, *(t.detach()[:, :tokens].requires_grad_() for t in cut))


Run = Callable[[], tuple[Tensor, Tensor]]
"""Forward and backward: returns the outputs and the gradient to the values."""
Candidate = Callable[[Problem], Run]
"""Prepares a problem in the candidate's own layout, outside of what is timed."""


def ours(backend: str) -> Candidate:
    def prepare(problem: Problem) -> Run:
        def run() -> tuple[Tensor, Tensor]:
            outputs, _ = prefix_attention(problem.scores, problem.values, backend=backend)
            leaves = (problem.values, problem.scores)
            return outputs, torch.autograd.grad(outputs, leaves, problem.gradient)[0]

        return run

    return prepare


def compiled_chunks() -> Candidate:
    compiled = torch.compile(lambda s, v: prefix_attention(s, v, backend="chunked")[0])

    def prepare(problem: Problem) -> Run:
        def run() -> tuple[Tensor, Tensor]:
            outputs = compiled(problem.scores, problem.values)
            leaves = (problem.values, problem.scores)
            return outputs, torch.autograd.grad(outputs, leaves, problem.gradient)[0]

        return run

    return prepare


def sdpa(problem: Problem) -> Run:
    """Torch's fused causal attention (FlashAttention where the card has it)."""
    tensors = (problem.query.expand(problem.keys.shape), problem.keys, problem.values)
    query, keys, values = (
        t.detach().transpose(1, 2).clone(memory_format=torch.contiguous_format).requires_grad_()
        for t in tensors
    )
    gradient = problem.gradient.detach().transpose(1, 2).contiguous()

    def run() -> tuple[Tensor, Tensor]:
        outputs = scaled_dot_product_attention(query, keys, values, is_causal=True)
        d_values = torch.autograd.grad(outputs, (values, keys, query), gradient)[0]
        return outputs.transpose(1, 2), d_values.transpose(1, 2)

    return run


def torch_scan(problem: Problem) -> Run:
    """Torch's prototype `associative_scan` over (m, u, w)."""
    from torch._higher_order_ops.associative_scan import associative_scan

    def join(a: tuple[Tensor, ...], b: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        m = torch.maximum(a[0], b[0])
        first, second = torch.exp(a[0] - m), torch.exp(b[0] - m)
        return m, a[1] * first + b[1] * second, a[2] * first + b[2] * second

    def run() -> tuple[Tensor, Tensor]:
        scores = problem.scores.float()[..., None]
        tokens = (scores, torch.ones_like(scores), problem.values.float())
        result: Any = associative_scan(join, tokens, 1, combine_mode="generic")
        outputs = (result[2] / result[1]).to(problem.values.dtype)
        leaves = (problem.values, problem.scores)
        return outputs, torch.autograd.grad(outputs, leaves, problem.gradient)[0]

    return run


def linear_attention_library(problem: Problem) -> Run:
    """flash-linear-attention's gated recurrence (HGRN) fed with the normalised form."""
    chunk_hgrn = import_module("fla.ops.hgrn").chunk_hgrn

    def run() -> tuple[Tensor, Tensor]:
        scores = problem.scores.float()
        share = torch.exp(scores - torch.logcumsumexp(scores, 1)).clamp(max=1 - 1e-7)
        decay = torch.log1p(-share).expand(-1, -1, DIM).contiguous()
        outputs, _ = chunk_hgrn((share * problem.values[:, :, 0].float()).contiguous(), decay)
        outputs = outputs[:, :, None].to(problem.values.dtype)
        return outputs, torch.autograd.grad(outputs, problem.values, problem.gradient)[0]

    return run


def candidates(time: int, device: str, with_compile: bool) -> dict[str, Candidate]:
    """What can run a sequence of this length on this device."""
    steps: dict[str, Candidate] = {}
    for name in ("triton", "cpu", "chunked", "scan", "recurrent"):
        on_device = name not in ("triton", "cpu") or (name == "cpu") == (device == "cpu")
        affordable = name != "recurrent" or time <= SEQUENTIAL_LIMIT
        if name in available_backends() and on_device and affordable:
            steps[f"ours: {name}"] = ours(name)
    if with_compile:
        steps["ours: chunked, compiled"] = compiled_chunks()
    if time <= SDPA_LIMIT or device == "cuda":
        steps["sdpa"] = sdpa
    steps["torch associative_scan"] = torch_scan
    if device == "cuda" and find_spec("fla") is not None:
        steps["fla hgrn"] = linear_attention_library
    return steps


def disagreement(candidate: Candidate, problem: Problem) -> str | None:
    """None if the candidate computes prefix attention; else how far off it is."""
    cut = problem.first(CHECKED)
    exact = [t.detach().double().requires_grad_() for t in (cut.scores, cut.values)]
    wanted, _ = prefix_attention(exact[0], exact[1], backend="reference")
    wanted_gradient = torch.autograd.grad(wanted, exact[1], cut.gradient.double())[0]
    error = {torch.float32: 1e-4, torch.bfloat16: 4e-2}[problem.values.dtype]
    try:
        outputs, gradient = candidate(cut)()
    except Exception as reason:  # a rival that cannot run is a finding, not a crash
        return f"{type(reason).__name__}: {str(reason).splitlines()[0]}"
    pairs = (("outputs", outputs, wanted), ("gradients", gradient, wanted_gradient))
    for name, got, want in pairs:
        got, want = got.detach().double(), want.detach()
        off = float((got - want).abs().max() / (1 + want.abs().max()))
        if not off <= error:
            return f"{name} are off by {off:.1e}"
    return None


def compare(
    batch: int, time: int, dtype: torch.dtype, options: Options, console: Console
) -> dict[str, Any]:
    """One shape, all candidates, in turns with a copy of the values."""
    problem = Problem.draw(batch, time, dtype, options.device)
    steps = candidates(time, options.device, options.compile)
    refused = {}
    for name in list(steps):
        wrong = disagreement(steps[name], problem)
        if wrong is not None:
            refused[name] = wrong
            del steps[name]
    runs: dict[str, Callable[[], object]] = {"copy": copy_of(problem)}
    for name, step in steps.items():
        runs[name] = step(problem)
    timings = take_turns(runs, turns=options.turns)
    title = f"{batch} x {time} tokens, width {DIM}, {str(dtype)[6:]}"
    console.print(as_table(title, timings, refused))
    return {
        "batch": batch,
        "time": time,
        "dtype": str(dtype)[6:],
        "seconds": {name: timing.record() for name, timing in timings.items()},
        "over_sdpa": _ratios(timings, "sdpa"),
        "over_copy": _ratios(timings, "copy"),
        "refused": refused,
    }


def _ratios(timings: dict[str, Timing], base: str) -> dict[str, tuple[float, float, float]]:
    if base not in timings:
        return {}
    return {name: timing.over(timings[base]) for name, timing in timings.items()}


def as_table(title: str, timings: dict[str, Timing], refused: dict[str, str]) -> Table:
    """Times, ratios and the share of the copy bandwidth; six tensors of `values`' size move."""
    table = Table(title=title, title_justify="left")
    headings = ("", "ms (10% to 90%)", "/ copy of values", "/ SDPA", "of copy bandwidth")
    for heading in headings:
        table.add_column(heading, justify="right" if heading else "left")
    copy, rival = timings["copy"], timings.get("sdpa")
    for name, timing in timings.items():
        low, high = timing.spread
        table.add_row(
            name,
            f"{1e3 * timing.median:.3f} ({1e3 * low:.3f} to {1e3 * high:.3f})",
            f"{timing.over(copy)[0]:.1f}",
            f"1/{1 / timing.over(rival)[0]:.1f}" if rival else "",
            f"{100 * (1 if name == 'copy' else 3) / timing.over(copy)[0]:.0f}%",
        )
    for name, reason in refused.items():
        table.add_row(name, f"no speed: {reason}", "", "", "")
    return table


@dataclass
class Curve:
    """Cost over the length: seconds, and most bytes held beyond what was there before."""

    time: list[int] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)
    bytes: list[int | None] = field(default_factory=list)

    def exponents(self) -> tuple[float | None, float | None]:
        """Slopes of log time and log memory over log length."""
        known = [b for b in self.bytes if b]
        of_memory = growth_exponent(self.time, known) if len(known) == len(self.time) else None
        return growth_exponent(self.time, self.seconds), of_memory


def grow(dtype: torch.dtype, options: Options, console: Console) -> dict[str, Any]:
    """Time and memory over the length, one sequence, and the slope of both."""
    curves: dict[str, Curve] = {}
    for time in options.lengths:
        problem = Problem.draw(1, time, dtype, options.device)
        steps = candidates(time, options.device, with_compile=False)
        runs: dict[str, Callable[[], object]] = {"copy": copy_of(problem)}
        for name, step in steps.items():
            if disagreement(step, problem) is None:
                runs[name] = step(problem)
        timings = take_turns(runs, turns=max(3, options.turns // 2))
        for name, run in runs.items():
            curve = curves.setdefault(name, Curve())
            curve.time.append(time)
            curve.seconds.append(timings[name].median)
            curve.bytes.append(None if name == "copy" else peak_memory(run, options.device))
    table = Table(title="Growth with the length, 1 sequence", title_justify="left")
    for heading in ("", "lengths", "ms at the longest", "MiB", "time ~ n^", "memory ~ n^"):
        table.add_column(heading, justify="right" if heading else "left")
    for name, curve in curves.items():
        of_time, of_memory = curve.exponents()
        table.add_row(
            name,
            f"{curve.time[0]} to {curve.time[-1]}",
            f"{1e3 * curve.seconds[-1]:.2f}",
            f"{(curve.bytes[-1] or 0) / 2**20:.1f}",
            f"{of_time:.2f}",
            "" if of_memory is None else f"{of_memory:.2f}",
        )
    console.print(table)
    return {name: {**vars(curve), "exponents": curve.exponents()} for name, curve in curves.items()}


def copy_of(problem: Problem) -> Callable[[], object]:
    """The yardstick: one copy of the values into memory that is already there."""
    target, source = torch.empty_like(problem.values).detach(), problem.values.detach()
    return lambda: target.copy_(source)


def check_bars(results: dict[str, Any], console: Console) -> dict[str, Any]:
    """The bars of the operator, each with what was measured (float32)."""
    found = {}
    for case, bars in BARS.items():
        row = results[f"{case}, float32"]
        best = min(
            (n for n in row["seconds"] if n.startswith("ours")),
            key=lambda n: row["seconds"][n]["median"],
        )
        for base, bar in bars.items():
            ratio, low, high = row[f"over_{base}"][best]
            met = ratio <= bar
            found[f"{case} / {base}"] = {
                "bar": bar,
                "ratio": ratio,
                "low": low,
                "high": high,
                "met": met,
                "by": best,
            }
            console.print(
                f"{best} at {row['batch']} x {row['time']}: {ratio:.4g} of {base} "
                f"({low:.4g} to {high:.4g}), bar {bar:.4g}: {'met' if met else 'MISSED'}"
            )
    return found


def draw_plot(results: dict[str, Any], path: str) -> None:
    """Time and memory over the length, log-log."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, axes = plt.subplots(1, 2, figsize=(11, 4.2), constrained_layout=True)
    for index, (name, curve) in enumerate(results["growth"].items()):
        width = 2.2 if name.startswith("ours") else 1.2
        style: dict[str, Any] = {"marker": "o", "linewidth": width, "color": f"C{index}"}
        axes[0].loglog(curve["time"], [1e3 * s for s in curve["seconds"]], label=name, **style)
        if all(curve["bytes"]):
            axes[1].loglog(curve["time"], [b / 2**20 for b in curve["bytes"]], label=name, **style)
    for axis, label in zip(axes, ("forward + backward, ms", "peak memory, MiB"), strict=True):
        axis.set(xlabel="tokens", ylabel=label)
        axis.grid(True, which="major", alpha=0.3)
    axes[0].legend(fontsize=8)
    machine = describe_machine()
    where = machine.get("gpu", machine["processor"])
    figure.suptitle(f"Prefix attention, width {DIM}, {where}, {machine['threads']} thread(s)")
    figure.savefig(path, dpi=130)


@dataclass(frozen=True)
class Options:
    """Speed and memory of prefix attention, forward + backward, beside its rivals.

    Attributes:
        device: cpu or cuda.
        threads: CPU threads.
        turns: how often each candidate has its turn.
        lengths: sequence lengths of the growth curve.
        compile: also time the chunked backend under torch.compile (compiles for minutes).
        allocator: `keep` lets the C allocator keep freed memory, `default` leaves it alone.
        name: of the files under benchmarks/results.
    """

    device: str = "cpu"
    threads: int = 1
    turns: int = 21
    lengths: tuple[int, ...] = (1000, 3000, 10_000, 30_000, 60_000)
    compile: bool = False
    allocator: str = "keep"
    name: str = "prefix_attention"


def main() -> None:
    options = tyro.cli(Options)
    console = Console(width=110)
    torch.set_num_threads(options.threads)
    results: dict[str, Any] = {"allocator": options.allocator}
    if options.allocator == "keep":
        keep_freed_memory()
    results["growth"] = grow(torch.float32, options, console)
    for case, (batch, time) in {"short": (64, 60), "long": (2, 3000)}.items():
        for dtype in (torch.float32, torch.bfloat16):
            name = f"{case}, {str(dtype)[6:]}"
            results[name] = compare(batch, time, dtype, options, console)
    if options.device == "cpu":
        results["bars"] = check_bars(results, console)
    path = save(options.name, results)
    draw_plot(results, str(path.with_suffix(".png")))
    console.print(f"wrote {path} and {path.with_suffix('.png').name}")


if __name__ == "__main__":
    main()

"""Is the operator right and fast on this CUDA card? Tests and measurements, in one command.

    scripts/gpu_check.sh [--out gpu-check] [--dry-run]

Needs PyTorch 2.9 or newer, triton, numpy, pytest, hypothesis and safetensors, and nothing else that
this package depends on: only `aaren_rl.ops` and `aaren_rl.layers` are used. Writes results.json,
report.md and, where matplotlib is installed, picture.png. `--dry-run` walks through all of it on a
CPU, at small sizes; its figures mean nothing.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from aaren_rl.layers import SequenceModel, SequenceState
from aaren_rl.ops import available_backends, prefix_attention
from benchmarks import gpu_report
from benchmarks.timing import describe_machine, growth_exponent, peak_memory, save, take_turns

ROOT = Path(__file__).parents[1]
TESTS = ("tests/ops/test_prefix_gpu.py", "tests/layers/test_layers_gpu.py")
WIDTH, OBSERVATION, ACTION = 128, 11, 3  # the default agent, in Hopper
DTYPES = {"bf16": torch.bfloat16, "fp32": torch.float32}
QUADRATIC_LIMIT = 100_000
"""Longest sequence on which causal attention is run: at a million tokens it takes minutes."""


@dataclass(frozen=True)
class Plan:
    """What is measured, at which sizes.

    Attributes:
        device: `cuda`, or `cpu` in a dry run.
        turns: how often each candidate has its turn.
        shapes: batch and tokens of the operator.
        lengths: tokens of one sequence, for the growth of time and memory.
        steps: batch and environment steps of a training step; three tokens are a step.
        environments: how many act together.
        deadline: `time.monotonic()` after which nothing new is begun.
    """

    device: str = "cuda"
    turns: int = 11
    shapes: tuple[tuple[int, int], ...] = ((64, 60), (2, 3_000), (1, 60_000), (1, 1_000_000))
    lengths: tuple[int, ...] = (1_000, 4_000, 16_000, 64_000, 256_000, 1_000_000)
    steps: tuple[tuple[int, int], ...] = ((64, 20), (64, 1_000), (1, 100_000))
    environments: tuple[int, ...] = (1, 64, 1_024)
    deadline: float = float("inf")
    unfinished: list[str] = field(default_factory=list)

    @staticmethod
    def dry(deadline: float) -> Plan:
        """Sizes at which a CPU takes seconds."""
        small = {"shapes": ((2, 60),), "lengths": (100, 200), "steps": ((2, 5),)}
        return Plan("cpu", 1, **small, environments=(2,), deadline=deadline)  # type: ignore[arg-type]

    def in_time(self, what: str) -> bool:
        """Whether there is time to begin `what`; if not, it is noted as not measured."""
        if time.monotonic() < self.deadline:
            print(what, flush=True)
            return True
        self.unfinished.append(what)
        return False


def run_tests(plan: Plan) -> dict[str, Any]:
    """The GPU tests of ops and layers, in a process of their own."""
    words = [sys.executable, "-m", "pytest", "-q", "-o", "addopts=", "-p", "no:cacheprovider"]
    done = subprocess.run(
        [*words, "-W", "ignore::pytest.PytestConfigWarning", *TESTS],
        cwd=ROOT,
        env={**os.environ, "GPU_CHECK_DEVICE": plan.device},
        capture_output=True,
        text=True,
        check=False,
    )
    counts = {
        word: int(n) for n, word in re.findall(r"(\d+) (passed|failed|skipped|error)", done.stdout)
    }
    return {"exit_code": done.returncode, **counts, "output": done.stdout[-4_000:]}


def captured(run: Callable[[], object], plan: Plan) -> Callable[[], object] | None:
    """`run` as a CUDA graph, which leaves out Python's time; `None` where it cannot be captured."""
    if plan.device != "cuda":
        return None
    try:
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                run()
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            run()
    except RuntimeError as error:
        print(f"  no CUDA graph: {str(error).splitlines()[0]}")
        return None
    return graph.replay


def with_graphs(
    runs: dict[str, Callable[[], object]], plan: Plan
) -> dict[str, Callable[[], object]]:
    """The runs, and beside each its CUDA graph."""
    graphs = {f"{name}, graph": captured(run, plan) for name, run in runs.items()}
    return {**runs, **{name: run for name, run in graphs.items() if run is not None}}


def draw(batch: int, tokens: int, dtype: torch.dtype, device: str, tensors: int) -> list[Tensor]:
    """Leaves `[batch, tokens, 1, WIDTH]` from a fixed seed, made where they are used."""
    generator = torch.Generator(device).manual_seed(0)
    shape = (batch, tokens, 1, WIDTH)
    return [
        torch.randn(shape, generator=generator, device=device).to(dtype).requires_grad_()
        for _ in range(tensors)
    ]


def operator_runs(
    batch: int, tokens: int, dtype: torch.dtype, plan: Plan
) -> tuple[dict[str, Callable[[], object]], dict[str, Callable[[], object]]]:
    """Name -> forward, and name -> forward and backward; SDPA has a fixed query, as Aaren has."""
    values, keys, gradient = draw(batch, tokens, dtype, plan.device, 3)
    query = torch.randn(WIDTH, device=plan.device)
    scores = (keys.detach().float() @ query / WIDTH**0.5).to(dtype).requires_grad_()
    into, gradient = torch.empty_like(values), gradient.detach()

    def ours() -> Tensor:
        return prefix_attention(scores, values)[0]

    by_head = [t.detach().transpose(1, 2).contiguous() for t in (keys, values, gradient)]
    q = query.to(dtype).expand_as(by_head[0]).contiguous().requires_grad_()
    k, v = (t.requires_grad_() for t in by_head[:2])

    def attention(*backends: SDPBackend) -> Callable[[], Tensor]:
        def run() -> Tensor:
            with sdpa_kernel(list(backends)) if backends else nullcontext():
                return scaled_dot_product_attention(q, k, v, is_causal=True)

        return run

    def both(run: Callable[[], Tensor], leaves: tuple[Tensor, ...], upstream: Tensor) -> Any:
        return lambda: torch.autograd.grad(run(), leaves, upstream)

    def alone(run: Callable[[], Tensor]) -> Callable[[], object]:
        def forward() -> Tensor:
            with torch.no_grad():
                return run()

        return forward

    rivals = {"sdpa": attention(), "flash": attention(SDPBackend.FLASH_ATTENTION)}
    if tokens > QUADRATIC_LIMIT:
        rivals = {}
    elif dtype == torch.float32 or plan.device == "cpu":
        rivals.pop("flash")  # FlashAttention takes half precision on a card alone
    copy = {"copy": lambda: into.detach().copy_(values.detach())}
    forward = {**copy, "ours": alone(ours), **{n: alone(run) for n, run in rivals.items()}}
    backward = {**copy, "ours": both(ours, (scores, values), gradient)}
    backward |= {name: both(run, (q, k, v), by_head[2]) for name, run in rivals.items()}
    return forward, backward


def works(name: str, run: Callable[[], object], refused: dict[str, str]) -> bool:
    """Whether a candidate runs here at all; a rival that cannot is a finding, not a crash."""
    try:
        run()
    except RuntimeError as error:
        refused[name] = str(error).splitlines()[0]
        return False
    return True


def time_operator(plan: Plan) -> list[dict[str, Any]]:
    """Every shape, dtype and pass: seconds in turns, ratios, the share of the copy bandwidth."""
    rows = []
    for batch, tokens in plan.shapes:
        for kind, dtype in DTYPES.items():
            if not plan.in_time(f"operator, {batch} x {tokens} tokens, {kind}"):
                continue
            passes = dict(
                zip(
                    ("forward", "forward+backward"),
                    operator_runs(batch, tokens, dtype, plan),
                    strict=True,
                )
            )
            for which, runs in passes.items():
                refused: dict[str, str] = {}
                runs = {name: run for name, run in runs.items() if works(name, run, refused)}
                memory = {name: peak_memory(run, plan.device) for name, run in runs.items()}
                timings = take_turns(with_graphs(runs, plan), turns=plan.turns)
                row = {"batch": batch, "tokens": tokens, "dtype": kind, "pass": which}
                row |= {"seconds": {n: t.record() for n, t in timings.items()}}
                row |= {"peak_bytes": memory, "refused": refused}
                rows.append(row | gpu_report.shares(row))
    return rows


def measure_growth(plan: Plan) -> dict[str, Any]:
    """Time and memory of forward and backward over the length of one bf16 sequence."""
    seconds, peaks = [], []
    lengths = [n for n in plan.lengths if plan.in_time(f"growth, {n} tokens")]
    for tokens in lengths:
        run = operator_runs(1, tokens, torch.bfloat16, plan)[1]["ours"]
        seconds.append(take_turns({"ours": run}, turns=plan.turns)["ours"].median)
        peaks.append(peak_memory(run, plan.device) or 0)
    known = len(lengths) > 1 and all(peaks)
    return {
        "tokens": lengths,
        "seconds": seconds,
        "peak_bytes": peaks,
        "time_exponent": growth_exponent(lengths, seconds) if len(lengths) > 1 else None,
        "memory_exponent": growth_exponent(lengths, peaks) if known else None,
    }


class StepModel(nn.Module):
    """What both agents compute: three tokens a step, three blocks, an action at the observation.

    Args:
        mixer: `aaren` or `attention`; all else is equal.
    """

    def __init__(self, mixer: str) -> None:
        super().__init__()
        options: dict[str, Any] = {"attention_dropout": 0.0} if mixer == "attention" else {}
        sizes = (ACTION, 1, OBSERVATION)
        self.embeddings = nn.ModuleList(nn.Linear(size, WIDTH) for size in sizes)
        self.model = SequenceModel(mixer, WIDTH, layers=3, dropout=0.1, **options)
        self.head = nn.Linear(WIDTH, ACTION)

    def forward(self, *numbers: Tensor) -> Tensor:
        """Actions `[batch, time, ACTION]` of the numbers of each kind, `[batch, time, size]`."""
        pairs = zip(self.embeddings, numbers, strict=True)
        tokens = torch.stack([embed(each) for embed, each in pairs], 2).flatten(1, 2)
        return self.head(self.model(tokens, read=slice(2, None, 3))[0])


def training_step(
    mixer: str, batch: int, steps: int, bf16: bool, device: str
) -> Callable[[], object]:
    """One update: forward, backward, clip, AdamW."""
    torch.manual_seed(0)
    model = StepModel(mixer).to(device).train()
    sizes = (ACTION, 1, OBSERVATION)
    numbers = [torch.randn(batch, steps, size, device=device) for size in sizes]
    wanted = torch.randn(batch, steps, ACTION, device=device)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-4, fused=True)

    def step() -> None:
        with torch.autocast(device, torch.bfloat16, enabled=bf16):
            loss = (model(*numbers) - wanted).square().mean()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.25)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step


def time_training(plan: Plan) -> list[dict[str, Any]]:
    """Both agents' sequence models at every size, in turns."""
    rows = []
    for batch, steps in plan.steps:
        for kind in DTYPES:
            what = f"training step, {batch} x {steps} steps, {kind}"
            if (kind == "fp32" and 3 * steps > QUADRATIC_LIMIT) or not plan.in_time(what):
                continue
            names = {"aaren": "aaren", "transformer": "attention"}
            runs: dict[str, Callable[[], object]] = {
                name: training_step(mixer, batch, steps, kind == "bf16", plan.device)
                for name, mixer in names.items()
            }
            refused: dict[str, str] = {}
            runs = {name: run for name, run in runs.items() if works(name, run, refused)}
            memory = {name: peak_memory(run, plan.device) for name, run in runs.items()}
            timings = take_turns(runs, turns=plan.turns)
            row = {"batch": batch, "steps": steps, "dtype": kind, "peak_bytes": memory}
            row |= {"seconds": {n: t.record() for n, t in timings.items()}, "refused": refused}
            if len(timings) == 2:
                row["aaren_over_transformer"] = timings["aaren"].over(timings["transformer"])
            rows.append(row)
    return rows


class Acting(nn.Module):
    """One environment step of carried state, tensors in and out, for compilers and graphs."""

    def __init__(self, model: SequenceModel, state: SequenceState) -> None:
        super().__init__()
        self.model, self.names = model, tuple(state.tensors())

    def forward(self, tokens: Tensor, *state: Tensor) -> tuple[Tensor, ...]:
        """The last token's features and the new state, of tokens `[batch, 3, WIDTH]`."""
        named = dict(zip(self.names, state, strict=True))
        before = SequenceState.from_tensors(self.model.state_types, named)
        x, after = self.model(tokens, before, read=slice(-1, None))
        return x[:, -1], *after.tensors().values()


@contextmanager
def acting_step(plan: Plan, batch: int) -> Iterator[dict[str, Callable[[], object]]]:
    """Name -> one step of `batch` environments, the state written back to where it was read."""
    torch.manual_seed(0)
    model = SequenceModel("aaren", WIDTH, layers=3).to(plan.device).eval()
    tokens = torch.randn(batch, 3, WIDTH, device=plan.device)
    with torch.no_grad():
        begun = model(tokens)[1]
        state, act = list(begun.tensors().values()), Acting(model, begun)
        backend = "inductor" if plan.device == "cuda" else "eager"
        compiled = torch.compile(act, backend=backend)

        def step(run: Callable[..., tuple[Tensor, ...]]) -> Callable[[], object]:
            def one() -> None:
                for mine, new in zip(state, run(tokens, *state)[1:], strict=True):
                    mine.copy_(new)

            return one

        rival = SequenceModel("attention", WIDTH, layers=3).to(plan.device).eval()
        window = torch.randn(batch, 60, WIDTH, device=plan.device)
        yield {
            "aaren": step(act),
            "aaren, compiled": step(compiled),
            "transformer, window of 20": lambda: rival(window, read=slice(-1, None))[0],
        }


def time_acting(plan: Plan) -> list[dict[str, Any]]:
    """Seconds a step, for one environment and many: eager, compiled, as CUDA graphs."""
    rows = []
    for batch in plan.environments:
        if not plan.in_time(f"acting, {batch} environments"):
            continue
        with acting_step(plan, batch) as runs:
            refused: dict[str, str] = {}
            runs = {name: run for name, run in runs.items() if works(name, run, refused)}
            timings = take_turns(with_graphs(runs, plan), turns=plan.turns)
        seconds = {n: t.record() for n, t in timings.items()}
        rows.append({"environments": batch, "seconds": seconds, "refused": refused})
    return rows


def main() -> int:
    """Measure and write; the exit code is 1 when a test failed, 2 without a card."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0] if __doc__ else "")
    parser.add_argument("--out", type=Path, default=ROOT / "gpu-check", help="folder to write to")
    parser.add_argument("--minutes", type=float, default=8.0, help="begin nothing new after these")
    parser.add_argument("--dry-run", action="store_true", help="small, on a CPU")
    given = parser.parse_args()
    if not given.dry_run and not torch.cuda.is_available():
        print(
            "error: no CUDA card is visible to PyTorch; --dry-run tries it on a CPU",
            file=sys.stderr,
        )
        return 2
    deadline = time.monotonic() + 60 * given.minutes
    plan = Plan.dry(deadline) if given.dry_run else Plan(deadline=deadline)
    started = time.monotonic()
    print("tests", flush=True)
    results: dict[str, Any] = {"dry_run": given.dry_run, "backends": available_backends()}
    results["machine"] = describe_machine()
    results["tests"] = run_tests(plan)
    results["operator"] = time_operator(plan)
    results["growth"] = measure_growth(plan)
    results["training"] = time_training(plan)
    results["acting"] = time_acting(plan)
    results["not_measured"] = plan.unfinished
    results["minutes"] = (time.monotonic() - started) / 60
    save("gpu_check", results, given.out / "results.json")
    for path in gpu_report.write(results, given.out):
        print(path)
    return int(results["tests"]["exit_code"] != 0)


if __name__ == "__main__":
    sys.exit(main())

"""Timing that can be trusted on a shared machine, and a record of the machine it ran on.

Candidates run in turns (A B C A B C ...), so that what else happens on the machine hits all of
them alike. Within a turn a short call is repeated and its median taken, which leaves out the few
calls that the system interrupted. A ratio is taken within each turn, and the median and the
spread of the turns are reported.
"""

from __future__ import annotations

import ctypes
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

RESULTS = Path(__file__).parent / "results"
Run = Callable[[], object]


@dataclass(frozen=True)
class Timing:
    """Seconds a call, one number a turn."""

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Seconds a call."""
        return statistics.median(self.seconds)

    @property
    def spread(self) -> tuple[float, float]:
        """First and ninth decile."""
        return _deciles(self.seconds)

    def over(self, other: Timing) -> tuple[float, float, float]:
        """Ratio to another candidate of the same turns: median, first and ninth decile."""
        ratios = [a / b for a, b in zip(self.seconds, other.seconds, strict=True)]
        return statistics.median(ratios), *_deciles(ratios)

    def record(self) -> dict[str, float | int]:
        """For JSON."""
        low, high = self.spread
        return {"median": self.median, "low": low, "high": high, "turns": len(self.seconds)}


def take_turns(
    candidates: Mapping[str, Run], *, turns: int = 15, at_least: float = 0.01
) -> dict[str, Timing]:
    """Time candidates in turns.

    Args:
        candidates: name -> a call to time.
        turns: how often each of them has its turn.
        at_least: seconds that a turn lasts; short calls are repeated within it.
    """
    repeats = {}
    for name, run in candidates.items():
        timed(run)  # compile, allocate, fill the caches
        repeats[name] = max(1, round(at_least / max(timed(run), 1e-7)))
    taken: dict[str, list[float]] = {name: [] for name in candidates}
    for _ in range(turns):
        for name, run in candidates.items():
            taken[name].append(_turn(run, repeats[name]))
    return {name: Timing(tuple(seconds)) for name, seconds in taken.items()}


def _turn(run: Run, repeats: int) -> float:
    """Seconds a call: the median of single calls, or on a GPU, which runs behind, their mean."""
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        return timed(lambda: [run() for _ in range(repeats)]) / repeats
    return statistics.median(timed(run) for _ in range(repeats))


def timed(run: Run) -> float:
    """Seconds of one call."""
    _wait_for_gpu()
    clock = _clock()
    start = clock()
    run()
    _wait_for_gpu()
    return clock() - start


def _clock() -> Callable[[], float]:
    """The time that this thread ran, where it runs alone: other processes cannot stretch it."""
    alone = torch.get_num_threads() == 1 and not torch.cuda.is_available()
    return time.thread_time if alone else time.perf_counter


def _wait_for_gpu() -> None:
    if torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def _deciles(numbers: tuple[float, ...] | list[float]) -> tuple[float, float]:
    if len(numbers) < 2:
        return numbers[0], numbers[0]
    cuts = statistics.quantiles(numbers, n=10, method="inclusive")
    return cuts[0], cuts[-1]


def peak_memory(run: Run, device: str = "cpu") -> int | None:
    """Most bytes that a call holds beyond what was there before; None where it cannot be known.

    On CPU the kernel's own high-water mark of the process (Linux), on a GPU the allocator's.
    """
    if device == "cuda":
        torch.cuda.synchronize()
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        run()
        torch.cuda.synchronize()
        return torch.cuda.max_memory_allocated() - before
    mark = Path("/proc/self/clear_refs")
    if not mark.exists():
        return None
    _libc("malloc_trim", 0)
    try:
        mark.write_text("5")  # resets the high-water mark
    except OSError:
        return None
    before = _status("VmRSS")
    run()
    return _status("VmHWM") - before


def _status(field: str) -> int:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(field + ":"):
            return int(line.split()[1]) * 1024
    raise KeyError(field)


def _libc(function: str, *arguments: int) -> int:
    try:
        return int(getattr(ctypes.CDLL(None), function)(*arguments))
    except (AttributeError, OSError, TypeError):
        return 0


def growth_exponent(sizes: Sequence[int], costs: Sequence[float]) -> float:
    """Slope of log(cost) over log(size) by least squares: 1 is linear, 2 quadratic."""
    x = torch.tensor(sizes, dtype=torch.float64).log()
    y = torch.tensor(costs, dtype=torch.float64).log()
    x, y = x - x.mean(), y - y.mean()
    return float((x * y).sum() / (x * x).sum())


def describe_machine() -> dict[str, Any]:
    """Processor, memory, GPU, versions, threads, and how busy the machine is."""
    machine: dict[str, Any] = {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "clock": _clock().__name__,
        "load_average": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        "system": platform.platform(terse=True),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "simd": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        machine["gpu"] = torch.cuda.get_device_name()
    return machine


def _processor() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def save(name: str, results: dict[str, Any], path: Path | None = None) -> Path:
    """Write `results/NAME.json`, or `path`, with the machine, the command and the commit."""
    path = path or RESULTS / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    header = {
        "command": " ".join(["python -m", f"benchmarks.{Path(sys.argv[0]).stem}", *sys.argv[1:]]),
        "commit": _commit(),
        "machine": describe_machine(),
    }
    path.write_text(json.dumps({**header, **results}, indent=1) + "\n")
    return path


def _commit() -> str | None:
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None

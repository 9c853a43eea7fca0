"""Benchmarks: tasks x agents x seeds from one file, resumable, on one machine or a cluster."""

from aaren_rl.benchmark.command import BenchmarkConfig, benchmark, read_benchmark
from aaren_rl.benchmark.spec import BenchmarkSpec, read_spec
from aaren_rl.benchmark.unit import Unit, units

__all__ = [
    "BenchmarkConfig",
    "BenchmarkSpec",
    "Unit",
    "benchmark",
    "read_benchmark",
    "read_spec",
    "units",
]

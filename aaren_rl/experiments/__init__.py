"""Experiments: agents, tasks and seeds compared; small (`compare`) and large (`benchmark`)."""

from aaren_rl.experiments.comparison import CompareConfig, compare
from aaren_rl.experiments.reporting import ReportConfig, report
from aaren_rl.experiments.spec import BenchmarkSpec, read_spec
from aaren_rl.experiments.sweep import BenchmarkConfig, benchmark, read_benchmark
from aaren_rl.experiments.unit import Unit, units

__all__ = [
    "BenchmarkConfig",
    "BenchmarkSpec",
    "CompareConfig",
    "ReportConfig",
    "Unit",
    "benchmark",
    "compare",
    "read_benchmark",
    "read_spec",
    "report",
    "units",
]

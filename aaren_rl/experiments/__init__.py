"""Experiments: agents, tasks and seeds compared; small (`compare`) and large (`benchmark`)."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.experiments.comparison import ComparisonRow, compare
    from aaren_rl.experiments.config import BenchmarkConfig, CompareConfig, ReportConfig
    from aaren_rl.experiments.reporting import report
    from aaren_rl.experiments.spec import BenchmarkSpec, read_spec
    from aaren_rl.experiments.sweep import Sweep, benchmark, read_benchmark
    from aaren_rl.experiments.unit import Unit, units

__all__ = [
    "BenchmarkConfig",
    "BenchmarkSpec",
    "CompareConfig",
    "ComparisonRow",
    "ReportConfig",
    "Sweep",
    "Unit",
    "benchmark",
    "compare",
    "read_benchmark",
    "read_spec",
    "report",
    "units",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

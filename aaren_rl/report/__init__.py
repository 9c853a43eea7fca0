"""Reports: a benchmark's runs as tables and pictures, with a first line that says how it stands."""

from aaren_rl.report.command import ReportConfig, report

__all__ = ["ReportConfig", "report"]

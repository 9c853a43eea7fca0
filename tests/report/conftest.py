"""A benchmark's folder as a sweep leaves it, without the hours: results by a simple law."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "benchmark"))  # sweep_cases

from report_cases import write_results


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of a benchmark of two tasks, three agents and two seeds."""
    return write_results(tmp_path_factory.mktemp("report") / "runs")

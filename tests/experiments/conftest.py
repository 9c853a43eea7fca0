"""A benchmark's folder as a sweep leaves it, without the hours: results by a simple law."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "training"))  # run_cases

from report_cases import write_results

from aaren_rl.evaluation import aggregates
from aaren_rl.experiments import ReportConfig, comparison, report, unit


@pytest.fixture(scope="session", autouse=True)
def _few_resamples_and_steps() -> Iterator[None]:
    """A tenth of the draws and of the steps that are timed.

    What an interval is worth is tested with the aggregates, what a step costs with its curves.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(aggregates, "RESAMPLES", 200)
        for module in (unit, comparison):
            patch.setattr(module, "COST_STEPS", 100)
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """All of a benchmark of two tasks, three agents and two seeds."""
    return write_results(tmp_path_factory.mktemp("report") / "runs")


@pytest.fixture(scope="session")
def reported(folder: Path) -> tuple[Path, str]:
    """That folder with its report, and the report's first line."""
    return folder, report(ReportConfig(folder))

"""Every example runs, small, and is short enough to be read at a glance."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path
from typing import Any

import pytest

FOLDER = Path(__file__).parents[2] / "examples"
SMALL: dict[str, dict[str, int]] = {
    "own_data": {"steps": 600, "updates": 5},
    "own_environment": {"episodes": 10, "updates": 5},
    "own_mixer": {"updates": 5, "width": 16},
    "own_agent": {"updates": 5, "width": 16},
    "own_loop": {"updates": 5, "width": 16, "steps": 20},
}


def imported(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, FOLDER / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up
    spec.loader.exec_module(module)
    return module


def test_all_are_tried() -> None:
    assert {file.stem for file in FOLDER.glob("*.py")} == set(SMALL)


@pytest.mark.parametrize("name", SMALL)
def test_it_runs(name: str, capfd: pytest.CaptureFixture[str]) -> None:
    assert math.isfinite(imported(name).main(**SMALL[name]))
    assert capfd.readouterr().out
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 60

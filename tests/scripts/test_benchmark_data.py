"""The data that `scripts/make_benchmark_data.py` makes are those that a spec names."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

import pytest

from aaren_rl.experiments import read_spec

ROOT = Path(__file__).parents[2]


def test_the_script_makes_what_the_spec_names(monkeypatch: pytest.MonkeyPatch) -> None:
    file = ROOT / "scripts/make_benchmark_data.py"
    spec = importlib.util.spec_from_file_location("make_benchmark_data", file)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)  # dataclasses look their module up
    spec.loader.exec_module(module)
    recipes = module.BenchmarkDataConfig().recipes()
    for recipe in recipes:
        recipe.check()
    made = {recipe.dataset_id(quality) for recipe in recipes for quality in recipe.datasets}
    tasks = read_spec(ROOT / "benchmarks/specs/collected.yaml").tasks
    assert {task.dataset for task in tasks.values()} == made

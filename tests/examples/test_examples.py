"""Every example runs, small, and is short enough to be read at a glance; so does README's."""

from __future__ import annotations

import importlib.util
import math
import re
import sys
from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
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
def test_it_runs(name: str, capfd: pytest.CaptureFixture[str], own_names: None) -> None:
    assert math.isfinite(imported(name).main(**SMALL[name]))
    assert capfd.readouterr().out
    assert len((FOLDER / f"{name}.py").read_text().splitlines()) < 60


def test_from_arrays_to_a_score_in_ten_lines(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    blocks = re.findall("```python\n(.*?)```", (FOLDER.parent / "README.md").read_text(), re.S)
    [block] = [each for each in blocks if "from_arrays" in each]
    assert len([line for line in block.splitlines() if line]) <= 10
    assert "updates=1500" in block
    monkeypatch.chdir(tmp_path)
    mine: dict[str, Any] = {
        "observations": np.random.default_rng(0).normal(size=(60, 3)),
        "actions": np.random.default_rng(1).uniform(-2, 2, (60, 1)),
        "rewards": -np.ones(60),
        "terminals": np.zeros(60, bool),
        "timeouts": np.arange(60) % 20 == 19,
        "MyEnv": lambda: gym.make("Pendulum-v1", max_episode_steps=20),
    }
    exec(block.replace("updates=1500", "updates=5"), mine)
    mode, target, mean = capsys.readouterr().out.split()[-3:]
    assert mode == "carry"
    assert float(target) == -20
    assert math.isfinite(float(mean))
    assert (tmp_path / "runs/mine/last/agent.json").is_file()

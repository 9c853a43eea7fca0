"""`make bench`: every command that it runs is understood, and one that fails is said."""

from __future__ import annotations

import importlib
from pathlib import Path
from typing import Any

import pytest
import tyro

from aaren_rl.cli import COMMANDS
from aaren_rl.options import parse

every = pytest.importorskip("benchmarks.all")
CONFIGS = {
    "prefix_attention": "Options",
    "training_step": "StepConfig",
    "acting": "ActingConfig",
    "data_on_disk": "Config",
    "image_memory": "Config",
    "memory": "MemoryConfig",
    "recall": "RecallConfig",
}


@pytest.mark.parametrize("quick", [False, True])
@pytest.mark.parametrize("name", every.COMMANDS)
def test_the_commands_are_understood(name: str, quick: bool, tmp_path: Path) -> None:
    module, *words = every.command_of(name, tmp_path, tmp_path, quick)[2:]
    if module == "aaren_rl":
        parse(COMMANDS[words[0]].kind, words[1:], prog=words[0])
    else:
        kind = getattr(importlib.import_module(module), CONFIGS[name])
        tyro.cli(kind, args=words)


def test_all_tables_are_among_them() -> None:
    written = {file.stem for file in every.RESULTS.glob("*.json")}
    # `make gpu` writes the second.
    assert written - set(every.COMMANDS) <= {"training_step_xeon", "gpu_check"}


def test_a_failure_does_not_stop_the_others(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    commands: Any = {"bad": ("no_such_module_here", ""), "good": ("platform", "")}
    monkeypatch.setattr(every, "COMMANDS", commands)
    assert every.main(["--quick"]) == 1
    captured = capfd.readouterr()
    assert captured.err.endswith("failed: bad\n")
    assert "good: exit code 0" in captured.out

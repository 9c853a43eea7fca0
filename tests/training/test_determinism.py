"""The same seed gives the same bytes: in any process, with any hash seed, however it evaluates."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from run_cases import summary

from aaren_rl.cli import main

FLAGS = [
    *("--dataset", "aaren-rl/hopper-small-v0", "--updates", "20", "--batch-size", "4"),
    *("--width", "8", "--layers", "1", "--context-length", "4", "--evaluate-every", "10"),
    *("--episodes", "2", "--device", "cpu", "--environment", "Hopper-v5?max_episode_steps=20"),
]
CHANGES: dict[str, tuple[str | None, list[str]]] = {
    "one": ("0", []),
    "hash": ("12345", []),
    "one-at-a-time": (None, ["--num-envs", "1"]),
    "on-disk": (None, ["--data-on", "disk"]),
}
"""By folder: `PYTHONHASHSEED` of a process of its own, or None for this process; and flags that do
not decide what is learned."""


def digests(run: Path) -> dict[str, str]:
    """SHA-256 of all tensors and of the agent's card."""
    paths = sorted([*run.rglob("*.safetensors"), *run.rglob("agent.json")])
    return {str(p.relative_to(run)): hashlib.sha256(p.read_bytes()).hexdigest() for p in paths}


def test_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AAREN_RL_CACHE", str(tmp_path / "cache"))
    processes = []
    for name, (seed, more) in CHANGES.items():
        words = ["train", *FLAGS, *more, "--out", str(tmp_path / name)]
        if seed is None:
            assert main(words) == 0
            continue
        environment = {**os.environ, "PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"}
        command = [sys.executable, "-m", "aaren_rl", *words]
        processes.append(subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL))
    assert [process.wait(timeout=300) for process in processes] == [0, 0]
    wanted = digests(tmp_path / "one")
    assert len(wanted) == 5
    results: dict[str, Any] = {name: summary(tmp_path / name) for name in CHANGES}
    for name in CHANGES:
        assert digests(tmp_path / name) == wanted, name
        if name != "one-at-a-time":  # sums over another batch are rounded in another way
            assert json.dumps(results[name]) == json.dumps(results["one"]), name

"""Processes as a user starts them: train, evaluate, compare, and the one command for all."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_cases import TINY
from forked import forked
from safetensors.torch import load_file

from aaren_rl.agents import load_agent
from aaren_rl.cli import main, print_rows

ROOT = Path(__file__).parents[2]
COMMAND = Path(sys.executable).parent / "aaren-rl"


def call(*words: str, folder: Path = ROOT) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        words,
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def script(name: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return call(sys.executable, f"scripts/{name}.py", *arguments)


def succeeded(process: subprocess.CompletedProcess[str]) -> str:
    assert process.returncode == 0, process.stderr
    assert "Traceback" not in process.stderr
    assert "warning" not in process.stderr.lower()
    return process.stdout


def test_train_then_evaluate(tmp_path: Path) -> None:
    run, file = tmp_path / "run", tmp_path / "scores.json"
    output = succeeded(script("train", *TINY, "--agent", "decision-aaren", "--out", str(run)))
    assert "decision-aaren on aaren-rl/hopper-small-v0, 30 updates" in output
    assert f"tensorboard --logdir {run}" in output
    summary = json.loads((run / "summary.json").read_text())
    [score] = summary["scores"]
    assert f"{score['score_mean']:,.1f}" in output

    arguments = ["--mode", "carry", "window", "--episodes", "3", "--target-return", "3600", "100"]
    words = ["evaluate", str(run), *arguments, "--json", str(file)]
    output = succeeded(forked(lambda: sys.exit(main(words)), tmp_path))
    rows = json.loads(file.read_text())["rows"]
    assert [(row["mode"], row["target_return"], row["episodes"]) for row in rows] == [
        ("carry", 3600.0, 3),
        ("carry", 100.0, 3),
        ("window", 3600.0, 3),
        ("window", 100.0, 3),
    ]
    for row in rows:
        assert f"{row['return_mean']:,.1f}" in output


def test_outputs_without_the_letters_and_none_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, "ascii"))
    assert main(["--version"]) == 0
    print_rows("± ü", [{"a": 1}], ["a"])
    assert b"\\xb1 \\xfc" in raw.getvalue()
    monkeypatch.setattr(sys, "stdout", None)  # as in a program without a window
    print_rows("", [{"a": 1}], ["a"])


def test_a_warning_is_one_line(tmp_path: Path) -> None:
    words = ["train", *TINY, "--target-return", "1e9", "--out", "run"]
    errors = forked(lambda: sys.exit(main(words)), tmp_path).stderr
    [line] = [line for line in errors.splitlines() if "far above the best return" in line]
    assert line.startswith("warning: target return 1e+09 is")
    assert "warn(" not in errors


def test_compare(tmp_path: Path) -> None:
    out = tmp_path / "comparison"
    words = ["compare", *TINY, "--seeds", "0", "1", "--out", str(out)]
    output = succeeded(forked(lambda: sys.exit(main(words)), tmp_path))
    rows = json.loads((out / "comparison.json").read_text())
    assert [row["agent"] for row in rows] == ["decision-aaren", "decision-transformer"]
    for row in rows:
        run = out / row["agent"] / "seed-0"
        assert row["parameters"] == load_agent(run / "last").num_parameters
        assert str(row["parameters"]) in output
        assert f"{row['score_mean']:,.1f}" in output
    assert f"tensorboard --logdir {out}" in output


def test_two_processes_learn_what_one_learns(tmp_path: Path) -> None:
    """Each takes half of every batch; no window of these is cut at an episode's end."""
    out = tmp_path / "two"
    flags = [*TINY, "--updates", "5", "--dropout", "0", "--environment", "none"]
    flags += ["--held-out", "0.05"]
    more = ["--seeds", "0", "1", "--agents", "decision-aaren", "--devices", "2"]
    output = succeeded(script("compare", *flags, *more, "--out", str(out)))
    assert output.count("look at it") == 1  # the second process is silent
    for seed in ("0", "1"):
        alone = tmp_path / seed
        assert main(["train", *flags, "--seed", seed, "--out", str(alone)]) == 0
        one, two = (
            load_file(run / "last" / "agent.safetensors")
            for run in (alone, out / "decision-aaren" / f"seed-{seed}")
        )
        for name, tensor in one.items():
            torch.testing.assert_close(two[name], tensor, rtol=0, atol=2e-5, msg=name)


def test_the_installed_command_fails_in_one_line(tmp_path: Path) -> None:
    process = call(str(COMMAND), "evaluate", "nowhere", folder=tmp_path)
    assert process.returncode == 2
    assert process.stdout == ""
    assert process.stderr.count("\n") == 1
    assert process.stderr.startswith("error: nowhere: not a training run")
    assert not any(tmp_path.iterdir())

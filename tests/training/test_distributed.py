"""Two processes under torchrun (gloo): what one process learns, and the same at every time."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from run_cases import scalars, signal_at_batch, weights

from aaren_rl.cli import main
from aaren_rl.errors import UserError
from aaren_rl.training import Interrupted, TrainConfig, train
from aaren_rl.training.build import processes

ROOT = Path(__file__).parents[2]
UPDATES = 20
FLAGS = (
    *("--updates", str(UPDATES), "--log-every", "1", "--learning-rate", "1e-3"),
    *("--batch-size", "64", "--width", "32", "--layers", "2", "--device", "cpu"),
    *("--environment", "none", "--evaluate-every", str(UPDATES), "--precision", "32"),
)
NO_DROPOUT = ("--dropout", "0", "--attention-dropout", "0")
AGENTS = ("decision-aaren", "decision-transformer")


SEVERAL = """
import json, sys
from aaren_rl.cli import main

for words in json.loads(sys.argv[1]):
    assert main(words) == 0
"""


def torchrun(folder: Path, *commands: list[str]) -> str:
    """Commands one after the other in two processes; those take seconds to start."""
    script = folder / "several.py"
    script.write_text(SEVERAL)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    process = subprocess.run(
        [sys.executable, *launcher, str(script), json.dumps(commands)],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert process.returncode == 0, process.stderr
    return process.stdout


def losses(run: Path) -> np.ndarray:
    steps, values = zip(*scalars(run)["training/loss"], strict=True)
    assert steps == tuple(range(1, UPDATES + 1))
    return np.array(values)


@pytest.fixture(scope="module")
def launched(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """The folder with a comparison and a run of two processes, and what they printed."""
    folder = tmp_path_factory.mktemp("two")
    how = [*NO_DROPOUT, "--agents", *AGENTS, "--seeds", "3", "--out", str(folder / "two")]
    run = ["train", *FLAGS, "--out", str(folder / "run")]
    return folder, torchrun(folder, ["compare", *FLAGS, *how], run)


def test_two_processes_have_the_loss_curve_of_one(
    launched: tuple[Path, str], tmp_path: Path
) -> None:
    """Episodes end inside these windows, so that the two halves of a batch count unequally."""
    folder, output = launched
    two = folder / "two"
    assert output.count("look at it") == 2  # once a command
    for agent in AGENTS:
        one = tmp_path / agent
        flags = [*NO_DROPOUT, "--agent", agent, "--seed", "3", "--out", str(one)]
        assert main(["train", *FLAGS, *flags]) == 0
        alone = losses(one)
        np.testing.assert_allclose(losses(two / agent / "seed-3"), alone, rtol=1e-6, atol=0)
        assert alone[-1] < 0.8 * alone[0]  # a curve in which something happens


def test_two_processes_are_repeatable_to_the_bit(
    launched: tuple[Path, str], tmp_path: Path
) -> None:
    first, second = launched[0] / "run", tmp_path / "again"
    torchrun(tmp_path, ["train", *FLAGS, "--out", str(second)])
    assert weights(first) == weights(second)
    assert np.array_equal(losses(first), losses(second))


def test_processes_and_hosts_are_torchruns(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(batch_size=64, devices=4)
    assert processes(config) == (4, 1)
    for name, value in (("RUN_ID", "x"), ("LOCAL_WORLD_SIZE", "8"), ("WORLD_SIZE", "16")):
        monkeypatch.setenv("TORCHELASTIC_RUN_ID" if name == "RUN_ID" else name, value)
    assert processes(config) == (8, 2)
    with pytest.raises(UserError, match=r"torchrun's 16 processes must divide --batch-size \(40\)"):
        processes(TrainConfig(batch_size=40))


def test_a_run_is_resumed_by_as_many_processes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    config = tiny(tmp_path / "run", environment="none", checkpoint_every=5)
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 12)
        with pytest.raises(Interrupted):
            train(config)
    file = config.out / "last" / "training.json"
    content = json.loads(file.read_text())
    content["random"] *= 2  # as two processes would have left it
    del content["sha256"]
    file.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"trained by 2 process\(es\); resume it with as many"):
        train(dataclasses.replace(config, resume=True))

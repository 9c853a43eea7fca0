"""`make gpu` without a card: its dry run on a CPU, and the bars by hand."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from benchmarks.gpu_report import shares, verdicts

ROOT = Path(__file__).parents[2]
HIDDEN = """
import sys
class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"gymnasium", "minari", "tyro", "msgspec",
                                      "matplotlib", "lightning_fabric"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Absent())
"""


def call(*words: str, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [ROOT / "scripts/gpu_check.sh", *words],
        env={**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **env},
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_dry_run_with_nothing_of_ours_installed(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(HIDDEN)
    path = os.pathsep.join([str(tmp_path), os.environ.get("PYTHONPATH", "")])
    done = call("--dry-run", "--out", str(tmp_path / "out"), PYTHONPATH=path)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "no picture: matplotlib is not installed" in done.stdout
    results = json.loads((tmp_path / "out/results.json").read_text())
    assert results["dry_run"]
    assert results["not_measured"] == []
    assert results["tests"]["passed"] >= 6
    assert {(row["dtype"], row["pass"]) for row in results["operator"]} == {
        (dtype, which) for dtype in ("bf16", "fp32") for which in ("forward", "forward+backward")
    }
    for row in results["operator"]:
        assert set(row["seconds"]) == {"copy", "ours", "sdpa"}
        assert row["of_copy_bandwidth"] > 0
    for row in results["training"]:
        assert set(row["seconds"]) == {"aaren", "transformer"}
    [acting] = results["acting"]
    assert set(acting["seconds"]) > {"aaren", "aaren, compiled"}
    report = (tmp_path / "out/report.md").read_text()
    assert "A dry run on a CPU" in report
    assert "## Bars" not in report
    assert not (tmp_path / "out/picture.png").exists()


@pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU is here")
def test_without_a_card_it_says_so(tmp_path: Path) -> None:
    done = call("--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no CUDA card is visible to PyTorch")
    assert not (tmp_path / "out").exists()


def test_bars() -> None:
    def seconds(**medians: float) -> dict[str, dict[str, float]]:
        return {name.replace("_", ", "): {"median": value} for name, value in medians.items()}

    row = {"tokens": 60_000, "pass": "forward+backward", "dtype": "bf16", "batch": 1}
    row["seconds"] = seconds(copy=1.0, copy_graph=0.9, ours=4.0, ours_graph=3.0, sdpa=30.0)
    row |= shares(row)
    assert row["of_copy_bandwidth"] == pytest.approx(0.9)
    assert row["times_as_fast_as_sdpa"] == pytest.approx(10)
    short = {**row, "tokens": 60, "times_as_fast_as_sdpa": 0.5}
    training = [{"aaren_over_transformer": (0.8, 0.7, 0.9)}]
    found = verdicts({"operator": [row, short], "training": training})
    assert [each["met"] for each in found] == [True, None, False, True]

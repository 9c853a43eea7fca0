"""The notebook runs from the first cell to the last; what is committed has its outputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")
pytest.importorskip("moviepy")
pytest.importorskip("onnxscript")

FILE = Path(__file__).parents[2] / "examples/tour.ipynb"
SMALL = "updates, evaluate_every, episodes, video_steps = 10, 5, 1, 30"


def outputs(cell: Any) -> str:
    return "".join(str(output) for output in cell.get("outputs", []))


def test_the_committed_notebook_shows_what_it_did() -> None:
    cells = [cell for cell in nbformat.read(FILE, 4).cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    text = "".join(map(outputs, cells))
    assert "video/mp4" in text
    assert text.count("image/png") == 3
    assert "'error'" not in text
    assert FILE.stat().st_size < 500_000


def test_it_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    notebook = nbformat.read(FILE, 4)
    [numbers] = [c for c in notebook.cells if "parameters" in c.metadata.get("tags", [])]
    [video] = [c for c in notebook.cells if "record_video(" in c.source]
    assert numbers.source.split(" = ")[0] == SMALL.split(" = ")[0]
    numbers.source = SMALL
    video.metadata["tags"] = ["raises-exception"]  # where there is no OpenGL the rest still runs
    folder = {"metadata": {"path": str(tmp_path)}}
    nbclient.NotebookClient(
        notebook, kernel_name="python3", timeout=300, resources=folder
    ).execute()
    shown = outputs(video)
    assert "video/mp4" in shown or "cannot draw the environment here" in shown
    [exported] = [c for c in notebook.cells if "largest difference" in c.source]
    assert float(outputs(exported).split("200 steps: ")[1].split("\\n")[0]) < 1e-5

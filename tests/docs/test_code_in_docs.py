"""The Python in the docs runs, page by page, from the first line to the last."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PAGES = [
    *("acting.md", "coming-from.md", "concepts.md", "data.md", "finetune.md", "layers.md"),
    *("plugins.md", "python.md", "start.md"),
]
LONG = re.compile(r"\b(updates=|episodes=|range\()(\d+)")
PART = {"updates=": 1000, "episodes=": 10, "range(": 100}
"""So many times less is done than the pages say, for a page to take seconds."""


def shorter(code: str) -> str:
    """The code with fewer updates, episodes and steps."""
    return LONG.sub(lambda found: f"{found[1]}{max(1, int(found[2]) // PART[found[1]])}", code)


@pytest.mark.usefixtures("own_registries")
@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    # The same graph, without a minute of code generation.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    text = (DOCS / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        above = "\n" * text[: block.start(1)].count("\n")  # so that a traceback has the page's line
        code = compile(above + shorter(block[1]), DOCS / page, "exec", dont_inherit=True)
        exec(code, names)

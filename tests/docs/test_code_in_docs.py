"""The Python in the docs runs, page by page, from the first line to the last."""

from __future__ import annotations

import re
from functools import partial
from pathlib import Path

import pytest
import torch

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["layers.md"]


@pytest.mark.parametrize("page", PAGES)
def test_code_runs(page: str, monkeypatch: pytest.MonkeyPatch) -> None:
    # The same graph, without a minute of code generation.
    monkeypatch.setattr(torch, "compile", partial(torch.compile, backend="aot_eager"))
    text = (DOCS / page).read_text()
    blocks = list(re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE))
    assert blocks
    names: dict[str, object] = {"__name__": page}
    for block in blocks:
        above = "\n" * text[: block.start(1)].count("\n")  # so that a traceback has the page's line
        exec(compile(above + block[1], str(DOCS / page), "exec"), names)

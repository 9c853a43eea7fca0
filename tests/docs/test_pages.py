"""README and docs: links lead somewhere, commands are understood, the site is built strictly."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from aaren_rl.cli import COMMANDS
from aaren_rl.options import parse

ROOT = Path(__file__).parents[2]
FILES = sorted(
    [*ROOT.glob("docs/*.md"), *ROOT.glob("*.md"), ROOT / "benchmarks/README.md"], key=str
)
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
FENCE = re.compile(r"^```[^\n]*\n.*?^```", re.DOTALL | re.MULTILINE)
OTHERS = ("runs/leaky", "runs/both", "--plugin")  # options of plug-ins that are not here
names = pytest.mark.parametrize("file", FILES, ids=lambda file: file.relative_to(ROOT).as_posix())


def anchors(file: Path) -> set[str]:
    """Anchors of a page's headings, as GitHub and mkdocs make them."""
    headings = re.findall(r"^#+ (.+)$", FENCE.sub("", file.read_text()), re.MULTILINE)
    plain = [re.sub(r"[^\w\s-]", "", heading.lower()).strip() for heading in headings]
    return {re.sub(r"\s+", "-", each) for each in plain}


@names
def test_links_lead_somewhere(file: Path) -> None:
    for target in LINK.findall(FENCE.sub("", file.read_text())):
        if "://" in target or target.startswith("reference/"):  # made when the site is built
            continue
        path, _, anchor = target.partition("#")
        there = (file.parent / path).resolve() if path else file
        assert there.exists(), f"{target}: no such file"
        assert there.is_relative_to(ROOT)
        if anchor:
            assert anchor in anchors(there), f"{target}: no such heading"


def commands(text: str) -> list[str]:
    """The lines of fenced blocks that call `aaren-rl`, continued lines joined, and inline ones."""
    blocks = "\n".join(FENCE.findall(text)).replace("\\\n", " ")
    lines = re.findall(r"^(?:\$ )?(aaren-rl .+?)(?:\s+# .*)?$", blocks, re.MULTILINE)
    return [*lines, *re.findall(r"^    (aaren-rl .+)$", text, re.MULTILINE)]


@names
def test_commands_are_understood(file: Path) -> None:
    for line in commands(file.read_text()):
        _, name, *words = shlex.split(line.partition(" > ")[0])
        if name.startswith("--") or "--help" in words or any(each in line for each in OTHERS):
            continue
        assert name in COMMANDS, line
        if "SPEC.yaml" in line or "..." in words:
            continue
        from aaren_rl.cli import with_value

        parse(COMMANDS[name].kind, with_value("--ray", "auto", words), prog=name)


def test_nobody_outside_needs_our_data() -> None:
    """Commands name public data; tables of results name what they were measured on."""
    for file in FILES:
        for line in commands(file.read_text()):
            private = "--dataset mujoco-zoo" in line
            assert not private or file.name in ("guide.md", "control.md"), line


def test_the_site_is_built_strictly_and_asks_nothing_of_the_network(tmp_path: Path) -> None:
    pytest.importorskip("material", reason="mkdocs-material is not installed")
    pytest.importorskip("mkdocstrings", reason="mkdocstrings is not installed")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert "WARNING" not in done.stderr
    for page in tmp_path.rglob("*.html"):
        loaded = re.findall(r'<(?:script|img|iframe)[^>]* src="([^"]+)"', page.read_text())
        loaded += re.findall(r'<link[^>]* rel="(?:stylesheet|preconnect)"[^>]*>', page.read_text())
        assert not [each for each in loaded if "//" in each.replace("data:", "")], page.name
    reference = (tmp_path / "reference/aaren_rl.html").read_text()
    import aaren_rl

    for name in aaren_rl.__all__:
        assert re.search(rf'id="aaren_rl\.[\w.]*{name}"', reference), name

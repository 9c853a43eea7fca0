"""What mkdocs does not do by itself: pages from outside docs/, the commands' help, the API.

Links in the repository's Markdown are those of the repository. Here a link to a page that the site
has is turned into the site's, and one to any other file of the repository into its path.
"""

from __future__ import annotations

import ast
import base64
import json
import os
import posixpath
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
INCLUDED = (
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "benchmarks/README.md",
    "benchmarks/results/zoo/report.md",
)
"""Pages from outside docs/; they keep their path."""
NOTEBOOKS = ("examples/tour.ipynb",)
"""Notebooks that are pages too."""
PACKAGES = ("", "data", "agents", "envs", "evaluation", "training", "experiments", "export")
MORE_PACKAGES = ("runtime", "collect", "convert", "layers", "ops")
LINK = re.compile(r"(!?)\[([^\]]*)\]\(([^)\s]+)\)")


def on_files(files: Files, *, config: Any) -> Files:
    """Add the pages that are made here."""
    for name in INCLUDED:
        files.append(File.generated(config, name, content=(ROOT / name).read_text()))
    for picture in ROOT.glob("benchmarks/results/**/*.png"):
        name = picture.relative_to(ROOT).as_posix()
        files.append(File.generated(config, name, abs_src_path=str(picture)))
    for notebook in NOTEBOOKS:
        add_notebook(files, config, notebook.removesuffix(".ipynb"))
    files.append(File.generated(config, "reference/commands.md", content=commands()))
    files.append(File.generated(config, "reference/python.md", content=overview()))
    documented: dict[str, str] = {}
    for package in (*PACKAGES, *MORE_PACKAGES):
        page = f"{package or 'aaren_rl'}.md"
        content = reference(package, page, documented)
        files.append(File.generated(config, f"reference/{page}", content=content))
    return files


def add_notebook(files: Files, config: Any, name: str) -> None:
    """Add a notebook as a page, with the outputs that it was committed with."""
    parts: list[str] = []
    for number, cell in enumerate(json.loads((ROOT / f"{name}.ipynb").read_text())["cells"]):
        source = "".join(cell["source"])
        parts.append(source if cell["cell_type"] == "markdown" else f"```python\n{source}\n```")
        printed: list[str] = []
        for output in cell.get("outputs", []):
            data = output.get("data", {})
            if "image/png" in data:
                picture = f"{name}-{number}.png"
                content = base64.b64decode(data["image/png"])
                files.append(File.generated(config, picture, content=content))
                parts.append(f"![Output of the cell above]({posixpath.basename(picture)})")
            elif "<video" in "".join(data.get("text/html", "")):
                parts.append("".join(data["text/html"]))
            else:
                printed.append("".join(output.get("text", data.get("text/plain", ""))).strip("\n"))
        if printed:
            parts.append("```text\n" + "\n".join(printed) + "\n```")
    files.append(File.generated(config, f"{name}.md", content="\n\n".join([*parts, ""])))


def on_page_markdown(markdown: str, *, page: Any, config: Any, files: Files) -> str:
    """Turn the repository's links into the site's."""
    source = page.file.src_uri
    if source.startswith("reference/"):
        return markdown
    outside = source in INCLUDED or source.startswith("examples/")
    place = posixpath.dirname(source if outside else f"docs/{source}")

    def moved(found: re.Match[str]) -> str:
        image, text, target = found.groups()
        path, _, anchor = target.partition("#")
        if not path or "://" in path or path.startswith("mailto:"):
            return found[0]
        inside = posixpath.normpath(posixpath.join(place, path)).removeprefix("docs/")
        if inside in NOTEBOOKS:
            inside = inside.replace(".ipynb", ".md")
        if files.get_file_from_path(inside) is None:
            if not (ROOT / inside).exists():
                return found[0]  # mkdocs says that it is broken
            return f"{text} (`{inside}` in the repository)" if text.strip("`") != inside else text
        there = posixpath.relpath(inside, posixpath.dirname(source) or ".")
        return f"{image}[{text}]({there}{'#' + anchor if anchor else ''})"

    return LINK.sub(moved, markdown)


def commands() -> str:
    """The help of every command, as it is printed."""
    env = {**os.environ, "COLUMNS": "100", "NO_COLOR": "1", "TERM": "dumb"}
    env["PYTHONPATH"] = os.pathsep.join([str(ROOT), env.get("PYTHONPATH", "")])

    def helped(*words: str) -> str:
        line = [sys.executable, "-m", "aaren_rl", *words, "--help"]
        done = subprocess.run(line, env=env, capture_output=True, text=True, check=True)
        return f"```text\n{done.stdout.strip()}\n```\n"

    overall = helped()
    names = re.findall(r"^  ([a-z]+) ", overall, re.MULTILINE)
    parts = [f"## aaren-rl {name}\n\n{helped(name)}" for name in names]
    return "\n".join(["# Commands\n", overall, *parts])


def public_names(package: str) -> list[tuple[str, str]]:
    """Name and module of everything in a package's `__all__`, read without importing it."""
    file = ROOT / "aaren_rl" / package / "__init__.py"
    tree = ast.parse(file.read_text())
    listed: list[str] = []
    for node in tree.body:
        if isinstance(node, ast.Assign) and getattr(node.targets[0], "id", "") == "__all__":
            listed = ast.literal_eval(node.value)
    imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
    origin = {each.asname or each.name: node.module for node in imports for each in node.names}
    here = ".".join(filter(None, ["aaren_rl", package]))
    return [(name, origin.get(name) or here) for name in listed]


def origin_of(name: str, module: str) -> str:
    """The module that defines a name: packages import from packages."""
    package = module.removeprefix("aaren_rl").removeprefix(".")
    file = ROOT / "aaren_rl" / package.replace(".", "/") / "__init__.py"
    if file.is_file():
        further = dict(public_names(package.replace(".", "/")))
        if further.get(name, module) != module:
            return origin_of(name, further[name])
    return module


def reference(package: str, page: str, documented: dict[str, str]) -> str:
    """The page of a package: every public name, from where it is defined.

    Args:
        package: its path below `aaren_rl`.
        page: the file's name.
        documented: full name -> page, of the names that have a place; each has one. Added to.
    """
    title = ".".join(filter(None, ["aaren_rl", package]))
    text = ast.get_docstring(ast.parse((ROOT / "aaren_rl" / package / "__init__.py").read_text()))
    parts = [f"# {title}\n", f"{text}\n"]
    for name, module in public_names(package):
        full = f"{origin_of(name, module)}.{name}"
        if documented.setdefault(full, page) == page:
            parts.append(f"::: {full}\n")
        else:
            parts.append(f"## {name}\n\nSee [{full}]({documented[full]}#{full}).\n")
    return "\n".join(parts)


def overview() -> str:
    """The list of packages with their public names."""
    lines = ["# Python\n", "| package | names |", "|---|---|"]
    for package in (*PACKAGES, *MORE_PACKAGES):
        title = ".".join(filter(None, ["aaren_rl", package]))
        names = ", ".join(f"`{name}`" for name, _ in public_names(package))
        lines.append(f"| [{title}]({package or 'aaren_rl'}.md) | {names} |")
    return "\n".join([*lines, ""])

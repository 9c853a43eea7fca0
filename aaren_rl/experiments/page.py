"""The report as one HTML file that needs nothing else, and as Markdown beside its pictures."""

from __future__ import annotations

import base64
from pathlib import Path

from aaren_rl.evaluation.noninferiority import counted
from aaren_rl.experiments.content import Content
from aaren_rl.experiments.plots import Group, Panel, saved, sheet
from aaren_rl.experiments.tables import tables, task_table
from aaren_rl.experiments.verdict import verdict

BELOW = {
    "Scores": ("learning_curves", "conditioning", "profiles"),
    "Errors by position in the episode": ("errors_by_position",),
}
"""Which pictures stand below which table."""


def pages(content: Content, groups: list[Group]) -> dict[str, str]:
    """`report.html`, with its pictures inside, and `report.md`, with them in `pictures/`."""
    from jinja2 import Environment, FileSystemLoader

    environment = Environment(
        loader=FileSystemLoader(Path(__file__).with_name("templates")),
        autoescape=lambda name: name is not None and name.startswith("report.html"),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.globals["svg"] = _svg
    line, standing = verdict(content)
    found = tables(content)
    values = {
        "content": content,
        "verdict": line,
        "standing": standing.replace(" ", "-"),
        "by_task": task_table(content),
        "tables": found,
        "pictures": {t: [g for g in groups if g.name in BELOW.get(t, ())] for t, _ in found},
        "counted": counted,
    }
    names = ("report.html", "report.md")
    return {name: environment.get_template(f"{name}.j2").render(values) for name in names}


def _svg(group: Group, panel: Panel) -> str:
    """A picture as the address that an `img` element takes."""
    data = base64.b64encode(saved(sheet([panel], group.looks), "svg")).decode()
    return f"data:image/svg+xml;base64,{data}"

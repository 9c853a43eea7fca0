"""The report as one HTML file that needs nothing else, and as Markdown beside its pictures."""

from __future__ import annotations

import base64
import html
from typing import Any

from aaren_rl.experiments.plots import Group, as_svg, single
from aaren_rl.experiments.tables import (
    Table,
    aggregate_table,
    comparison_table,
    cost_table,
    error_table,
    score_table,
    task_table,
    to_html,
    to_markdown,
)
from aaren_rl.experiments.verdict import verdict

CSS = """
:root { color-scheme: light; --line: #dfe3e8; --soft: #f6f7f9; --text: #1c2024; --dim: #60646c; }
* { box-sizing: border-box; }
body { margin: 0; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", Roboto, sans-serif;
  color: var(--text); background: #fff; }
main { max-width: 1140px; margin: 0 auto; padding: 1.5rem 1.25rem 4rem; }
.verdict { margin: 0 0 1.5rem; padding: .9rem 1.1rem; border-left: 6px solid #8b8d98;
  background: var(--soft); border-radius: 4px; font-size: 1.08rem; font-weight: 600; }
.verdict.better, .verdict.not-worse { border-color: #2b9a66; }
.verdict.worse { border-color: #dc3e42; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 1.6rem 0 .35rem; }
h2 { font-size: 1.25rem; margin: 2.6rem 0 .4rem; padding-top: .8rem;
  border-top: 1px solid var(--line); }
p { margin: .35rem 0 .8rem; color: var(--dim); max-width: 78ch; overflow-wrap: anywhere; }
.scroll { overflow-x: auto; border: 1px solid var(--line); border-radius: 6px; }
table { border-collapse: collapse; width: 100%; font-size: .9rem;
  font-variant-numeric: tabular-nums; }
th, td { padding: .42rem .7rem; text-align: right; white-space: nowrap;
  border-bottom: 1px solid var(--line); }
thead th { background: var(--soft); white-space: normal; vertical-align: bottom;
  min-width: 5.5rem; }
tbody tr:last-child > * { border-bottom: 0; }
th:first-child { text-align: left; position: sticky; left: 0; background: #fff; font-weight: 500; }
thead th:first-child { background: var(--soft); font-weight: 700; }
.panels { display: grid; gap: .9rem; grid-template-columns: repeat(auto-fill, minmax(330px, 1fr)); }
.panels.one { max-width: 560px; }
figure { margin: 0; border: 1px solid var(--line); border-radius: 6px; padding: .4rem; }
img { display: block; width: 100%; height: auto; }
details p { max-width: none; }
@media (max-width: 480px) {
  main { padding: 1rem .8rem 3rem; } h1 { font-size: 1.4rem; } table { font-size: .82rem; }
  th, td { padding: .36rem .5rem; }
  .panels { grid-template-columns: 1fr; }
  tbody th:first-child { white-space: normal; min-width: 7.5rem; }
}
"""


def tables(content: dict[str, Any]) -> list[tuple[str, Table]]:
    """The report's tables with their titles, in order."""
    every = [
        ("Scores", score_table(content)),
        ("Over all tasks", aggregate_table(content) if content["aggregates"] else None),
        ("The claim", comparison_table(content)),
        ("Cost", cost_table(content) if content["costs"] else None),
        ("Errors by position in the episode", error_table(content)),
    ]
    return [(title, table) for title, table in every if table is not None]


def intro(content: dict[str, Any]) -> str:
    """What was run, in a few words."""
    runs = content["runs"]
    return (
        f"{len(runs['tasks'])} tasks, {len(runs['agents'])} agents, {len(runs['seeds'])} seeds: "
        f"{runs['asked'] - len(runs['missing'])} of {runs['asked']} runs are done. Each run counts "
        f"by {content['checkpoint']}: fixed before it began."
    )


def settings_text(content: dict[str, Any]) -> str:
    """The settings that all runs share, and the machine, in one paragraph."""
    shared, machine = content["settings"]["shared"], content["settings"]["machine"]
    told = ", ".join(f"{name} {value}" for name, value in shared.items() if value is not None)
    ran = "; ".join(f"{name} {', '.join(values)}" for name, values in machine.items())
    return f"The same in all runs: {told}. Run on: {ran}."


def to_page(content: dict[str, Any], groups: list[Group]) -> str:
    """The report as HTML: styles and pictures are inside, nothing is fetched."""
    line, standing = verdict(content)
    by_task = task_table(content)
    parts = [
        "<!doctype html>",
        '<html lang="en"><head><meta charset="utf-8">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{html.escape(content['name'])}: report</title><style>{CSS}</style></head>",
        f'<body><main><p class="verdict {standing.replace(" ", "-")}" '
        'style="color: inherit; max-width: none">'
        f"{html.escape(line)}</p>",
        "" if by_task is None else to_html(by_task),
        f"<h1>{html.escape(content['name'])}</h1><p>{html.escape(intro(content))}</p>",
    ]
    for title, table in tables(content):
        parts.append(f"<h2>{html.escape(title)}</h2>{to_html(table)}")
        parts += [_figures(group) for group in groups if group.name in BELOW.get(title, ())]
    parts.append(f"<h2>Settings</h2><p>{html.escape(settings_text(content))}</p>")
    if content["runs"]["missing"]:
        names = ", ".join(content["runs"]["missing"])
        parts.append(f"<h2>Missing runs</h2><p>{html.escape(names)}</p>")
    parts.append("</main></body></html>")
    return "\n".join(parts) + "\n"


BELOW = {
    "Scores": ("learning_curves", "conditioning", "profiles"),
    "Errors by position in the episode": ("errors_by_position",),
}
"""Which pictures stand below which table."""


def _figures(group: Group) -> str:
    figures = ""
    for panel in group.panels:
        data = base64.b64encode(as_svg(single(panel)).encode()).decode()
        words = html.escape(f"{group.title}: {panel.title}", quote=True)
        figures += f'<figure><img alt="{words}" src="data:image/svg+xml;base64,{data}"></figure>'
    few = " one" if len(group.panels) == 1 else ""
    return (
        f"<h2>{html.escape(group.title)}</h2><p>{html.escape(group.caption)}</p>"
        f'<div class="panels{few}">{figures}</div>'
    )


def to_markdown_page(content: dict[str, Any], groups: list[Group]) -> str:
    """The report as Markdown; pictures are in `pictures/NAME.png`."""
    by_task = task_table(content)
    parts = [verdict(content)[0], ""]
    parts += [] if by_task is None else [to_markdown(by_task)]
    parts += [f"# {content['name']}", "", intro(content), ""]
    for title, table in tables(content):
        parts += [f"## {title}", "", to_markdown(table)]
        for group in groups:
            if group.name in BELOW.get(title, ()):
                picture = f"![{group.title}](pictures/{group.name}.png)"
                parts += [f"## {group.title}", "", group.caption, "", picture, ""]
    parts += ["## Settings", "", settings_text(content)]
    if content["runs"]["missing"]:
        parts += ["", "## Missing runs", "", ", ".join(content["runs"]["missing"])]
    return "\n".join(parts) + "\n"

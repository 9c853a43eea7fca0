"""From a benchmark's folder to its report: a page, Markdown, LaTeX, JSON, pictures, TensorBoard."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

from aaren_rl.agents import load_agent
from aaren_rl.evaluation.evaluating import environment_of_agent
from aaren_rl.evaluation.noninferiority import counted
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.evaluation.video import record_video
from aaren_rl.experiments.config import ReportConfig
from aaren_rl.experiments.content import Content, report_content, to_json
from aaren_rl.experiments.outcome import Outcome, read_outcome
from aaren_rl.experiments.plots import Group, Panel, groups, saved, sheet
from aaren_rl.experiments.tables import score_table, tables, task_table, to_latex
from aaren_rl.experiments.tensorboard import write_curves, write_pictures, write_videos
from aaren_rl.experiments.verdict import verdict
from aaren_rl.files import make_folder, write_bytes, write_json
from aaren_rl.records import typed
from aaren_rl.registry import load_plugins

BELOW = {
    "Scores": ("learning_curves", "conditioning", "profiles"),
    "Errors by position in the episode": ("errors_by_position",),
}
"""The pictures below each table."""
CURVES = "mean"
"""The run in TensorBoard with the agents' means over seeds."""


def report(runs: ReportConfig | Path | str, **options: Any) -> str:
    """Write the report of a benchmark.

    Args:
        runs: the benchmark's folder; or all options in one.
        options: the other fields of `ReportConfig`.

    Returns:
        Its first line.

    Raises:
        UserError: when the folder is none of a benchmark, no run is finished, or `--out` cannot
            be written.
    """
    config = runs if isinstance(runs, ReportConfig) else ReportConfig(Path(runs), **options)
    config = typed(config, "report()")
    load_plugins(config.plugin)
    outcome = read_outcome(config.runs)
    folder = config.folder
    make_folder(folder)
    content = report_content(outcome)
    line, standing = verdict(content)
    pictures = groups(content)
    files = pages(content, pictures)
    files["scores.tex"] = to_latex(score_table(content), content.name)
    write_json(folder / "report.json", {"verdict": line, "standing": standing, **to_json(content)})
    for name, text in files.items():
        write_bytes(folder / name, text.encode())
    figures = {group.name: sheet(group.panels, group.looks) for group in pictures}
    for name, figure in figures.items():
        write_bytes(folder / "pictures" / f"{name}.png", saved(figure, "png"))
    write_curves(config.runs / CURVES, content)
    write_pictures(config.runs / "report", {f"report/{name}": f for name, f in figures.items()})
    if config.videos:
        write_videos(config.runs / "report" / "videos", _videos(outcome, config))
    return line


def _videos(outcome: Outcome, config: ReportConfig) -> dict[str, Path]:
    """An episode of each task and agent, the first finished seed's last agent in its first mode."""
    videos = {}
    for task in outcome.tasks:
        for name in outcome.agents:
            for seed in list(outcome.of(task, name))[:1]:
                run = config.runs / task / name / f"seed-{seed}"
                agent = load_agent(run)
                videos[f"{task}/{name}"] = record_video(
                    agent,
                    environment_of_agent(agent),
                    config.folder / "videos" / task / name,
                    mode=outcome.spec.agents[name].modes[0],  # type: ignore[arg-type]
                    seed=first_episode_seed(seed, "after training") + outcome.spec.evaluation.seed,
                )
    return videos


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

"""From a benchmark's folder to its report: a page, Markdown, LaTeX, JSON, pictures, TensorBoard."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import tyro

from aaren_rl.agents import load_agent
from aaren_rl.errors import UserError
from aaren_rl.evaluation.evaluate import checkpoint_folder, environment_of_agent
from aaren_rl.evaluation.seeds import first_episode_seed
from aaren_rl.evaluation.video import record_video
from aaren_rl.experiments.content import report_content
from aaren_rl.experiments.outcome import Outcome, read_outcome
from aaren_rl.experiments.page import to_markdown_page, to_page
from aaren_rl.experiments.plots import as_png, groups, sheet
from aaren_rl.experiments.tables import score_table, to_latex
from aaren_rl.experiments.tensorboard import write_curves, write_pictures, write_videos
from aaren_rl.experiments.verdict import verdict
from aaren_rl.files import probe_folder, write_bytes, write_json

CURVES = "mean"
"""The run in TensorBoard, beside the tasks, that has the agents' means over seeds."""


@dataclass(frozen=True)
class ReportConfig:
    """Report on a benchmark's folder, finished or not.

    Leaves report.html (one file that needs no network), report.md with pictures/, scores.tex and
    report.json in --out, and the pictures in TensorBoard. Example: aaren-rl report runs/zoo
    """

    runs: Annotated[Path, tyro.conf.Positional]
    """Folder of a benchmark."""
    out: Path | None = None
    """Folder to write to; by default RUNS/report."""
    videos: bool = False
    """Also film an episode of each agent on each task, with the first seed (extra `video`)."""

    @property
    def folder(self) -> Path:
        """Where the report goes."""
        return self.out or self.runs / "report"


def report(config: ReportConfig) -> str:
    """Write the report.

    Returns:
        Its first line.

    Raises:
        UserError: when the folder is none of a benchmark, no run is finished, or `--out` cannot
            be written.
    """
    outcome = read_outcome(config.runs)
    folder = config.folder
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe_folder(folder)
    except OSError as error:
        raise UserError(f"--out {folder}: cannot be written ({error.strerror})") from None
    content = report_content(outcome)
    line, standing = verdict(content)
    pictures = groups(content)
    write_json(folder / "report.json", {"verdict": line, "standing": standing, **content})
    for group in pictures:
        write_bytes(folder / "pictures" / f"{group.name}.png", as_png(sheet(group.panels)))
    _write(folder / "report.md", to_markdown_page(content, pictures))
    _write(folder / "scores.tex", to_latex(score_table(content), content["name"]))
    _write(folder / "report.html", to_page(content, pictures))
    write_curves(config.runs / CURVES, content)
    write_pictures(config.runs / "report", pictures)
    if config.videos:
        write_videos(config.runs / "report" / "videos", _films(outcome, config))
    return line


def _write(file: Path, text: str) -> None:
    write_bytes(file, text.encode())


def _films(outcome: Outcome, config: ReportConfig) -> dict[str, Path]:
    """An episode of each task and agent, the first finished seed's last agent in its first mode."""
    films = {}
    for task in outcome.tasks:
        for agent in outcome.agents:
            for seed in list(outcome.of(task, agent))[:1]:
                run = config.runs / task / agent / f"seed-{seed}"
                folder = config.folder / "videos" / task / agent
                first = first_episode_seed(seed, "after training") + outcome.spec.evaluation.seed
                films[f"{task}/{agent}"] = _film(run, folder, outcome, agent, first)
    return films


def _film(run: Path, folder: Path, outcome: Outcome, agent: str, seed: int) -> Path:
    actor: Any = load_agent(checkpoint_folder(run, "last"))
    mode = outcome.spec.agents[agent].modes[0]
    return record_video(actor, environment_of_agent(actor), folder, mode=mode, seed=seed)

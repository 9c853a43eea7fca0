"""The tables and the picture of `benchmarks.learning`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

COLOURS = {
    "decision-aaren": "tab:blue",
    "decision-transformer": "tab:orange",
    "d3rlpy": "tab:green",
    "d3rlpy-tuned": "tab:olive",
    "d3rlpy-defaults": "tab:cyan",
    "corl": "tab:red",
    "corl-tuned": "tab:pink",
}

IDLE = 0.9  # share of a core that a training has on an idle machine, at least


def _mean(numbers: list[float | None], digits: int) -> str:
    """Mean over seeds, `-` where a seed has no number."""
    known = [number for number in numbers if number is not None]
    return f"{np.mean(known):.{digits}f}" if len(known) == len(numbers) else "-"


def report(results: dict[str, Any], clock: str, console: Console) -> None:
    """Print a table for each dataset; `clock` says whose seconds these are."""
    for dataset, result in results["datasets"].items():
        equal = result["equal_seconds"]
        table = Table(title=f"{dataset}: means over seeds, {clock} seconds", title_justify="left")
        table.add_column("contender")
        columns = ("final score", "of each seed", f"after {equal:.0f} s", "seconds", "to 90%")
        for column in (*columns, "ms an update", "core share", "parameters"):
            table.add_column(column, justify="right")
        for name, each in result["contenders"].items():
            first = each["first_evaluation_seconds"]
            bound = each["seconds_to_90_percent"] == first
            table.add_row(
                name,
                _mean(each["final_score"], 1),
                " ".join(f"{score:.1f}" for score in each["final_score"]),
                _mean(each["score_at_equal_seconds"], 1),
                _mean(each["train_seconds"], 1),
                ("<= " if bound else "") + _mean(each["seconds_to_90_percent"], 1),
                _mean(each["ms_per_update"], 1),
                _mean(each["cpu_share"], 2),
                f"{each['parameters']:,}",
            )
        console.print(table)
        share = min(min(each["cpu_share"]) for each in result["contenders"].values())
        if share < IDLE and clock == "wall":
            console.print(
                f"other processes took the core: one training had it for {share:.0%} of the time; "
                "these seconds compare only on an idle machine (or with --clock processor)"
            )


def draw(datasets: dict[str, dict[str, Any]], path: Path) -> None:
    """Score against training seconds, a panel for each dataset, a colour for each contender.

    Thin lines are seeds; the thick one joins the means over seeds of each evaluation's time and
    score. The dotted line is the time at which scores are compared at equal seconds.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(1.5 + 5 * len(datasets), 4.6), layout="constrained")
    panels: Any = figure.subplots(1, len(datasets), squeeze=False)[0]
    for panel, (dataset, result) in zip(panels, datasets.items(), strict=True):
        for name, each in result["contenders"].items():
            curves = [
                [(row["train_seconds"], row["score"]) for row in run["curve"]]
                for run in each["runs"]
            ]
            for curve in curves:
                panel.plot(*zip(*curve, strict=True), color=COLOURS[name], linewidth=0.6, alpha=0.6)
            mean = np.mean(curves, axis=0)
            panel.plot(*mean.T, "o-", color=COLOURS[name], label=name, markersize=3.5, linewidth=2)
        panel.axvline(result["equal_seconds"], color="tab:gray", linestyle=":", linewidth=1)
        panel.set_xlim(left=0)
        panel.set_title(dataset, fontsize=10)
        panel.set_xlabel("training, seconds")
        panel.set_ylabel("score")
        panel.grid(alpha=0.3)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)

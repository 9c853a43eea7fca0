"""The picture of `benchmarks.learning`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

COLOURS = {
    "decision-aaren": "tab:blue",
    "decision-transformer": "tab:orange",
    "d3rlpy": "tab:green",
    "d3rlpy-tuned": "tab:olive",
    "d3rlpy-defaults": "tab:cyan",
    "corl": "tab:red",
    "corl-tuned": "tab:pink",
}


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

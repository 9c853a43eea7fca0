"""The picture of `benchmarks.memory`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

COLOURS = ("tab:blue", "tab:orange", "tab:red", "tab:brown", "tab:green", "tab:purple")


def draw(contenders: dict[str, dict[str, Any]], path: Path) -> None:
    """Three panels over the corridor's length: success, bytes of state, time of a step."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 3)
    keys = ("success", "state_bytes", "microseconds")
    for (name, each), colour in zip(contenders.items(), COLOURS, strict=False):
        for panel, key in zip(panels, keys, strict=True):
            points = [(row["length"], row[key]) for row in each["rows"] if key in row]
            panel.plot(*zip(*points, strict=True), "o-", color=colour, label=name, markersize=4)
    titles = ("share of cues recalled", "bytes from step to step", "time of a step")
    for panel, title, unit in zip(panels, titles, ("", "bytes", "microseconds"), strict=True):
        panel.set_xscale("log")
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("steps of the corridor")
        panel.set_ylabel(unit)
        panel.grid(alpha=0.3)
    panels[0].axhline(0.5, color="tab:gray", linestyle=":", linewidth=1)
    panels[0].text(20, 0.51, "chance", fontsize=8, color="tab:gray")
    panels[0].set_ylim(0, 1.05)
    for panel in panels[1:]:
        panel.set_yscale("log")
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=6, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)

"""The picture of `benchmarks.acting`: the paper's figure 5 for acting."""

from __future__ import annotations

from pathlib import Path
from typing import Any

STYLES = {"Aaren": "tab:blue", "Transformer": "tab:orange", "Hugging": "tab:green"}
DASHES = ("-", "--", ":", "-.")


def draw(curves: dict[str, dict[str, Any]], path: Path) -> None:
    """Three panels over the step: cumulated time, bytes of the state, growth of the process."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(13, 4.2), layout="constrained")
    panels: Any = figure.subplots(1, 3)
    used: dict[str, int] = {}
    for name, curve in curves.items():
        family = next((word for word in STYLES if name.startswith(word)), "other")
        number = used[family] = used.get(family, -1) + 1
        style = {"color": STYLES.get(family, "tab:gray"), "linestyle": DASHES[number % 4]}
        first = curve["process_bytes"][0]
        grown = [max(0, each - first) / 1e6 for each in curve["process_bytes"] if each is not None]
        panels[0].loglog(curve["steps"], curve["cumulated_seconds"], label=name, **style)
        panels[1].loglog(curve["steps"], curve["state_bytes"], **style)
        panels[2].semilogx(curve["steps"][-len(grown) :], grown, **style)
    for panel, title, unit in zip(
        panels,
        ("cumulated time", "bytes from step to step", "growth of the process"),
        ("seconds", "bytes", "MB"),
        strict=True,
    ):
        panel.set_title(title, fontsize=10)
        panel.set_xlabel("environment step")
        panel.set_ylabel(unit)
        panel.grid(alpha=0.3)
    figure.legend(loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.savefig(path, dpi=110)

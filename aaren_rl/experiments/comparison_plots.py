"""Pictures of a comparison."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def plot_length_errors(summaries: dict[str, list[dict[str, Any]]]) -> Figure | None:
    """Action error on held-out episodes by position, carried state against recomputed window.

    Args:
        summaries: for each agent, the summaries of its runs.

    Returns:
        The picture, or `None` when nothing was held out.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8, 4.5), layout="constrained")
    axis: Any = figure.subplots()
    drawn = False
    for number, (agent, runs) in enumerate(summaries.items()):
        tables = [run["offline"][-1]["lengths"] for run in runs if run["offline"]]
        if not tables:
            continue
        drawn = True
        middle = [np.sqrt((row["first"] + 1) * row["last"]) for row in tables[0]]
        for mode, style in (("carry", "-"), ("window", "--")):
            errors = np.array([[row[mode] for row in table] for table in tables])
            axis.plot(
                middle,
                errors.mean(0),
                style,
                marker="o",
                markersize=3,
                color=f"C{number}",
                label=f"{agent}, {mode}",
            )
    if not drawn:
        return None
    axis.set_xscale("log")
    axis.set_ylim(0, None)
    axis.set_xlabel("step of the episode")
    axis.set_ylabel("action error on held-out episodes")
    axis.legend(fontsize=8)
    return figure

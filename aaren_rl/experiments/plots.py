"""Pictures of a report: one panel each for a page that flows, and a sheet of all for a file."""

from __future__ import annotations

import io
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from aaren_rl.evaluation.statistics import FEWEST_SEEDS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Okabe and Ito's colours, which colour-blind readers can tell apart.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#6b6b6b")
DASHES = ("-", (0, (5, 1.5)), (0, (1, 1.2)), (0, (5, 1, 1, 1)))
STYLE: Any = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": "#e6e6e6",
    "grid.linewidth": 0.7,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
    "svg.hashsalt": "aaren-rl",
}


@dataclass(frozen=True)
class Panel:
    """One picture: `draw` puts it on an axis."""

    title: str
    draw: Callable[[Any], None]


@dataclass(frozen=True)
class Group:
    """Pictures of one kind.

    Attributes:
        name: of its file.
        title: for people.
        caption: what they show.
        panels: the pictures.
    """

    name: str
    title: str
    caption: str
    panels: list[Panel]


def groups(content: dict[str, Any]) -> list[Group]:
    """All pictures of a report that have something to show."""
    looks = line_looks(content)
    every = [
        Group(
            "learning_curves",
            "Learning curves",
            "Score by gradient update, acting in each agent's first mode; bands are the range "
            "over seeds, lowest to highest.",
            _panels(content["learning_curves"], looks, "update", "update"),
        ),
        Group(
            "conditioning",
            "Asked-for and achieved return",
            "Score achieved by the score asked for; an agent that does what it is told is on the "
            "dotted line. Bands are the range over seeds, lowest to highest.",
            _panels(content["conditioning"], looks, "asked", "score asked for", diagonal=True),
        ),
        Group(
            "profiles",
            "Performance profile",
            "Share of runs, over all common tasks and seeds, that score above a threshold: higher "
            f"is better. {_profile_bands(content['profiles'])}",
            [Panel("all common tasks", _profile(content["profiles"], looks))]
            if content["profiles"]
            else [],
        ),
        Group(
            "errors_by_position",
            "Action error by position",
            "Error on held-out episodes by the step of the episode, without acting.",
            [
                Panel(task, _errors(lines, looks))
                for task, lines in content["errors_by_position"].items()
            ],
        ),
    ]
    return [group for group in every if group.panels]


def line_looks(content: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """A colour for each agent and a dash for each of its modes, by label."""
    looks: dict[str, dict[str, Any]] = {}
    seen: dict[str, list[str]] = {agent: [] for agent in content["runs"]["agents"]}
    labels = [*(content["scores"][0]["scores"] if content["scores"] else [])]
    labels += [label for lines in content["errors_by_position"].values() for label in lines]
    for label in dict.fromkeys(labels):
        agent = label.rsplit(" (", 1)[0]
        seen[agent].append(label)
        looks[label] = {"linestyle": DASHES[(len(seen[agent]) - 1) % len(DASHES)]}
    for number, agent in enumerate(seen):
        looks[agent] = {"linestyle": "-"}
        for label in (agent, *seen[agent]):
            looks[label]["color"] = COLOURS[number % len(COLOURS)]
    return looks


def _panels(
    tasks: dict[str, Any],
    looks: dict[str, Any],
    place: str,
    axis_label: str,
    diagonal: bool = False,
) -> list[Panel]:
    def panel(lines: dict[str, list[dict[str, float]]]) -> Callable[[Any], None]:
        def draw(axis: Any) -> None:
            for label, points in lines.items():
                x = [point[place] for point in points]
                axis.plot(x, [p["mean"] for p in points], label=label, **looks[label])
                low, high = [p["low"] for p in points], [p["high"] for p in points]
                axis.fill_between(x, low, high, alpha=0.13, lw=0, color=looks[label]["color"])
            if diagonal:
                ends = [min(axis.get_xlim()[0], 0), axis.get_xlim()[1]]
                axis.plot(ends, ends, ":", color="#888888", lw=1, zorder=0)
            axis.set_xlabel(axis_label)
            axis.set_ylabel("score")
            axis.legend()

        return draw

    return [Panel(task, panel(lines)) for task, lines in tasks.items()]


def _profile_bands(profiles: dict[str, Any]) -> str:
    if any(profile["low"] is not None for profile in profiles.values()):
        return "Bands are 95% intervals by the stratified bootstrap."
    return f"Without bands: fewer than {FEWEST_SEEDS} seeds have no interval."


def _profile(profiles: dict[str, Any], looks: dict[str, Any]) -> Callable[[Any], None]:
    def draw(axis: Any) -> None:
        for label, profile in profiles.items():
            axis.plot(profile["thresholds"], profile["share"], label=label, **looks[label])
            if profile["low"] is not None:
                colour = looks[label]["color"]
                band = (profile["thresholds"], profile["low"], profile["high"])
                axis.fill_between(*band, alpha=0.13, lw=0, color=colour)
        axis.set_xlabel("score")
        axis.set_ylabel("share of runs above")
        axis.set_ylim(-0.02, 1.02)
        axis.legend()

    return draw


def _errors(lines: dict[str, Any], looks: dict[str, Any]) -> Callable[[Any], None]:
    def draw(axis: Any) -> None:
        for label, points in lines.items():
            middle = [np.sqrt((p["first"] + 1) * p["last"]) for p in points]
            means = [p["mean"] for p in points]
            axis.plot(middle, means, marker="o", markersize=3, label=label, **looks[label])
        axis.set_xscale("log")
        axis.set_ylim(0, None)
        axis.set_xlabel("step of the episode")
        axis.set_ylabel("action error")
        axis.legend()

    return draw


def single(panel: Panel) -> Figure:
    """One panel as a picture."""
    return sheet([panel], columns=1)


def sheet(panels: list[Panel], columns: int = 3) -> Figure:
    """Panels side by side in rows."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(columns, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, panel in zip(axes, panels, strict=False):
            panel.draw(axis)
            axis.set_title(panel.title, fontsize=10, loc="left")
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    return figure


def as_svg(figure: Figure) -> str:
    """The picture as SVG text, the same at every call."""
    return _saved(figure, "svg", metadata={"Date": None}).decode()


def as_png(figure: Figure) -> bytes:
    """The picture as PNG."""
    return _saved(figure, "png", dpi=130)


def _saved(figure: Figure, kind: str, **options: Any) -> bytes:
    import matplotlib as mpl

    buffer = io.BytesIO()
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()

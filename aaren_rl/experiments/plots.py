"""Pictures of a report: one panel each for a page that flows, and a sheet of all for a file."""

from __future__ import annotations

import io
import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aaren_rl.evaluation.aggregates import Profile
from aaren_rl.evaluation.statistics import FEWEST_SEEDS
from aaren_rl.experiments.content import Content, Points

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
    """One picture of curves by label.

    Attributes:
        labels: of the axes.
        limits: of the vertical axis.
        diagonal: whether to draw the line on which both axes are equal.
        log: whether the horizontal axis is logarithmic; each point then has a marker.
    """

    title: str
    curves: dict[str, Points]
    labels: tuple[str, str]
    limits: tuple[float | None, float | None] = (None, None)
    diagonal: bool = False
    log: bool = False


@dataclass(frozen=True)
class Group:
    """Pictures of one kind; `name` is that of their file."""

    name: str
    title: str
    caption: str
    panels: list[Panel]
    looks: dict[str, dict[str, Any]] = field(default_factory=dict)


def groups(content: Content) -> list[Group]:
    """All pictures of a report that have something to show."""
    profiles = content.profiles
    bands = (
        "Bands are 95% intervals over seeds."
        if any(profile.low is not None for profile in profiles.values())
        else f"Without bands: fewer than {FEWEST_SEEDS} seeds have no interval."
    )
    shares = {label: _points(profile) for label, profile in profiles.items()}
    whole = Panel("all common tasks", shares, ("score", "share of runs above"), (-0.02, 1.02))
    every = {
        ("learning_curves", "Learning curves"): (
            "Score by gradient update, acting in each agent's first mode; bands are the range "
            "over seeds, lowest to highest.",
            [Panel(*each, ("update", "score")) for each in content.learning_curves.items()],
        ),
        ("conditioning", "Asked-for and achieved return"): (
            "Score achieved by the score asked for; an agent that does what it is told is on the "
            "dotted line. Bands are the range over seeds, lowest to highest.",
            [
                Panel(*each, ("score asked for", "score"), diagonal=True)
                for each in content.conditioning.items()
            ],
        ),
        ("profiles", "Performance profile"): (
            "Share of runs, over all common tasks and seeds, that score above a threshold: higher "
            f"is better. {bands}",
            [whole] if shares else [],
        ),
        ("errors_by_position", "Action error by position"): (
            "Error on held-out episodes by the step of the episode, without acting.",
            [error_panel(*each) for each in content.errors_by_position.items()],
        ),
    }
    looks = line_looks(content)
    return [
        Group(name, title, caption, panels, looks)
        for (name, title), (caption, panels) in every.items()
        if panels
    ]


def _points(profile: Profile) -> Points:
    low, high = profile.low or profile.share, profile.high or profile.share
    rows = zip(profile.thresholds, profile.share, low, high, strict=True)
    return [dict(zip(("score", "mean", "low", "high"), row, strict=True)) for row in rows]


def error_panel(title: str, curves: dict[str, Points]) -> Panel:
    """Action errors by position; bins are drawn at their geometric middle."""
    middle = {
        label: [{"step": math.sqrt((p["first"] + 1) * p["last"]), **p} for p in points]
        for label, points in curves.items()
    }
    return Panel(title, middle, ("step of the episode", "action error"), (0, None), log=True)


def line_looks(content: Content) -> dict[str, dict[str, Any]]:
    """A colour for each agent and a dash for each of its modes, by label."""
    labels = [label for row in content.scores[:1] for label in row.scores]
    labels += [label for lines in content.errors_by_position.values() for label in lines]
    return looks_of(content.runs.agents, labels)


def looks_of(agents: list[str], labels: list[str]) -> dict[str, dict[str, Any]]:
    """A colour for each agent and a dash for each label `AGENT (MODE)`."""
    looks: dict[str, dict[str, Any]] = {}
    for number, agent in enumerate(agents):
        own = [x for x in dict.fromkeys(labels) if x == agent or x.rsplit(" (", 1)[0] == agent]
        for place, label in enumerate(own):
            looks[label] = {"linestyle": DASHES[place % len(DASHES)]}
        looks.setdefault(agent, {})["linestyle"] = "-"
        for label in (agent, *own):
            looks[label]["color"] = COLOURS[number % len(COLOURS)]
    return looks


def _draw(axis: Any, panel: Panel, looks: dict[str, dict[str, Any]]) -> None:
    for label, points in panel.curves.items():
        x = [next(iter(point.values())) for point in points]  # the place's first number
        mean, low, high = ([point[name] for point in points] for name in ("mean", "low", "high"))
        markers: Any = {"marker": "o", "markersize": 3} if panel.log else {}
        axis.plot(x, mean, label=label, **markers, **looks[label])
        axis.fill_between(x, low, high, alpha=0.13, lw=0, color=looks[label]["color"])
    if panel.diagonal:
        ends = [min(axis.get_xlim()[0], 0), axis.get_xlim()[1]]
        axis.plot(ends, ends, ":", color="#888888", lw=1, zorder=0)
    if panel.log:
        axis.set_xscale("log")
    axis.set_ylim(*panel.limits)
    axis.set_xlabel(panel.labels[0])
    axis.set_ylabel(panel.labels[1])
    axis.legend()
    axis.set_title(panel.title, fontsize=10, loc="left")


def sheet(panels: list[Panel], looks: dict[str, dict[str, Any]]) -> Figure:
    """Panels in rows of at most three."""
    import matplotlib as mpl
    from matplotlib.figure import Figure

    columns = min(3, len(panels))
    rows = math.ceil(len(panels) / columns)
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(4.4 * columns, 3.3 * rows), layout="constrained")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, panel in zip(axes, panels, strict=False):
            _draw(axis, panel, looks)
        for axis in axes[len(panels) :]:
            axis.set_visible(False)
    return figure


def saved(figure: Figure, kind: str) -> bytes:
    """A picture as `png` or `svg`, the same bytes at every call."""
    import matplotlib as mpl

    buffer = io.BytesIO()
    options: Any = {"metadata": {"Date": None}} if kind == "svg" else {"dpi": 130}
    with mpl.rc_context(STYLE):
        figure.savefig(buffer, format=kind, **options)
    return buffer.getvalue()

"""Tables of a report: once as rows of words, then in Markdown, LaTeX and HTML."""

from __future__ import annotations

from dataclasses import dataclass, field

from aaren_rl.evaluation.noninferiority import counted
from aaren_rl.evaluation.statistics import FEWEST_SEEDS, Estimate
from aaren_rl.experiments.content import Content, Spread
from aaren_rl.experiments.verdict import status_words

PLACES = (0, 1, 10, 100, 1000)
"""First steps of the positions that the table of errors shows."""


@dataclass(frozen=True)
class Table:
    """Rows of text; the first column is left-aligned.

    `strong` holds (row, column) of the cells in bold.
    """

    columns: list[str]
    rows: list[list[str]]
    caption: str
    strong: set[tuple[int, int]] = field(default_factory=set)


def tables(content: Content) -> list[tuple[str, Table]]:
    """The report's tables with their titles, in order; those without rows are left out."""
    every = {
        "Scores": score_table(content),
        "Over all tasks": aggregate_table(content),
        "The claim": comparison_table(content),
        "Cost": cost_table(content),
        "Errors by position in the episode": error_table(content),
    }
    return [(title, table) for title, table in every.items() if table.rows]


def score_table(content: Content) -> Table:
    """The paper's form: a row for each task, mean ± deviation over seeds, the best in bold."""
    labels = list(content.scores[0].scores)
    rows, strong = [], set()
    for number, row in enumerate(content.scores):
        cells = [row.scores[label] for label in labels]
        known = [cell.mean for cell in cells if cell is not None]
        title = row.task if row.normalized else f"{row.task} (return)"
        rows.append([title, _number(row.data), *map(_mean, cells)])
        best = [cell is not None and cell.mean == max(known) for cell in cells]
        strong |= {(number, column + 2) for column, is_best in enumerate(best) if is_best}
    averages = {row.contender: row.mean.value for row in content.aggregates}
    if averages:
        common = [row.data for row in content.scores if row.task in content.common_tasks]
        known_data = [data for data in common if data is not None]
        data = sum(known_data) / len(common) if len(known_data) == len(common) else None
        means = [averages.get(label) for label in labels]
        best_mean = max(averages.values())
        strong |= {(len(rows), i + 2) for i, mean in enumerate(means) if mean == best_mean}
        rows.append(["average", _number(data), *map(_number, means)])
    scale = (
        "0 and 100 are the task's reference returns (D4RL's random and expert ones for the known "
        "robots); "
        if any(row.normalized for row in content.scores)
        else "Scores are plain returns: the data have no reference scores; "
    )
    caption = (
        f"Mean ± standard deviation over {counted(len(content.runs.seeds), 'seed')}; each run "
        f"counts by {content.checkpoint}, {content.episodes} episodes each. {scale}`data` is "
        "the data's own mean. The best mean of a row is bold."
    )
    return Table(["task", "data", *labels], rows, caption, strong)


def aggregate_table(content: Content) -> Table:
    """IQM, median, mean and optimality gap with their intervals or ranges."""
    found = [[r.iqm, r.median, r.mean, r.optimality_gap] for r in content.aggregates]
    rows = [
        [row.contender, str(row.runs), *map(_estimate, estimates)]
        for row, estimates in zip(content.aggregates, found, strict=True)
    ]
    bounds = _bounds([each for estimates in found for each in estimates])
    caption = (
        f"Over {counted(len(content.common_tasks), 'task')}. {bounds} IQM is the mean of the "
        "middle half of all runs; the optimality gap, how far runs stay below 100, is better when "
        "small."
    )
    return Table(["agent", "seeds", "IQM", "median", "mean", "optimality gap"], rows, caption)


def task_table(content: Content) -> Table | None:
    """The claim on each task, in numbers and words; `None` without a comparison."""
    compared = content.comparison
    if compared is None:
        return None
    rows = [
        [
            row.task if row.normalized else f"{row.task} (return)",
            str(row.seeds),
            _number(row.ours_mean),
            _number(row.rival_mean),
            _estimate(row.difference, "+.1f"),
            status_words(row.verdict),
        ]
        for row in compared.tasks
    ]
    margin = f"{compared.margin:g}"
    caption = (
        f"{compared.ours} against {compared.best} on each task. The rule, with a margin of "
        f"{margin} normalised points fixed in the spec: better, when the interval of the "
        f"difference lies above 0; not worse, when its lower end lies above -{margin}; worse, when "
        f"it lies below 0 and reaches to -{margin} or below; else not decided. Differences are "
        f"paired by seed. {_bounds([row.difference for row in compared.tasks])}"
    )
    heads = ["task", "seeds", compared.ours, compared.best, "difference of means", "verdict"]
    return Table(heads, rows, caption)


def comparison_table(content: Content) -> Table:
    """The claim against each of the rival's modes; no rows without a claim."""
    compared = content.comparison
    against = [] if compared is None else compared.against
    rows = [
        [
            row.rival,
            str(row.seeds),
            _estimate(row.iqm_difference, "+.1f"),
            _estimate(row.improvement, ".2f"),
            status_words(row.verdict),
        ]
        for row in against
    ]
    best = {(i, 0) for i, row in enumerate(against) if compared and row.rival == compared.best}
    every = [each for row in against for each in (row.iqm_difference, row.improvement)]
    caption = (
        f"{'' if compared is None else compared.ours} against each mode of its rival: difference "
        "in IQM, and the chance that a run of ours scores higher on a random task (0.5: equal). "
        "The first line is about the rival's mode with the highest IQM (bold), which was chosen by "
        f"its result: that favours the rival. Runs are paired by task and seed. {_bounds(every)}"
    )
    heads = ["rival", "seeds", "difference in IQM", "probability of improvement", "verdict"]
    return Table(heads, rows, caption, best)


def cost_table(content: Content) -> Table:
    """Parameters, times and memory."""
    rows = [
        [
            row.contender,
            *(f"{value:,.0f}" for value in (row.parameters, row.train_seconds)),
            f"{row.act_microseconds:,.0f}",
            *(f"{value:,.0f}" for value in (row.state_bytes_first, row.state_bytes_last)),
            f"{row.peak_bytes / 2**20:,.0f}",
        ]
        for row in content.costs
    ]
    steps = max((row.steps for row in content.costs), default=0)
    heads = ["agent", "parameters", "training, s", "acting, µs a step"]
    heads += ["state at step 1, bytes", f"state at step {steps}, bytes", "peak memory, MiB"]
    caption = (
        "Medians over tasks and seeds. Acting: one environment, at the end of an episode; the "
        "state is all that goes from one step to the next. Peak memory is the whole process', "
        "training included. Times were taken while other runs went on beside."
    )
    return Table(heads, rows, caption)


def error_table(content: Content) -> Table:
    """Action error early and late in held-out episodes; no rows when nothing was held out."""
    lines = {
        f"{task}: {label}": {(p["first"], p["last"]): p["mean"] for p in points}
        for task, labels in content.errors_by_position.items()
        for label, points in labels.items()
    }
    every = {place for points in lines.values() for place in points}
    bins = sorted(place for place in every if place[0] in PLACES or place == max(every))
    rows = [
        [title, *(f"{points[place]:.4f}" if place in points else "-" for place in bins)]
        for title, points in lines.items()
    ]
    heads = [f"step {b}" if b == a + 1 else f"steps {a + 1} to {b}" for a, b in bins]
    caption = (
        "Action error on held-out episodes by position, without acting: the state carried from the "
        "episode's start against a window that is recomputed. Mean over seeds; squared error with "
        "an action's range as [-1, 1], for discrete actions the share of wrong ones."
    )
    return Table(["task and agent", *heads], rows, caption)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mean(cell: Spread | None) -> str:
    if cell is None:
        return "-"
    return _number(cell.mean) + ("" if cell.std is None else f" ± {cell.std:.1f}")


def _estimate(value: Estimate, style: str = ".1f") -> str:
    text = format(value.value, style)
    if value.low is None or value.high is None:
        return text
    low, high = format(value.low, style), format(value.high, style)
    return (
        f"{text} (range {low} to {high})" if value.bounds == "range" else f"{text} [{low}, {high}]"
    )


def _bounds(values: list[Estimate]) -> str:
    """What the brackets and ranges of a table are, for its caption."""
    words = []
    if any(value.bounds == "95% interval" for value in values):
        words.append("In brackets: 95% intervals over seeds.")
    if any(value.bounds == "range" for value in values):
        words.append(
            f"Of fewer than {FEWEST_SEEDS} seeds there is no interval: the smallest and the "
            "largest run are given as their range."
        )
    return " ".join(words)


def to_latex(table: Table, label: str) -> str:
    """A booktabs table, escaped by pandas."""
    import pandas as pd

    frame = pd.DataFrame(table.rows, columns=table.columns)
    bold = pd.DataFrame("", index=frame.index, columns=frame.columns)
    for row, column in table.strong:
        bold.iloc[row, column] = "textbf:--rwrap;"
    style = frame.style.apply(lambda _: bold, axis=None).hide(axis="index")
    text: str = (
        style.format(escape="latex")
        .format_index(escape="latex", axis="columns")
        .to_latex(
            hrules=True,
            position_float="centering",
            column_format="l" + "r" * (len(table.columns) - 1),
            caption=table.caption.replace("`", "").replace("%", r"\%"),
            label=f"tab:{label}",
        )
    )
    return text.replace("±", r"$\pm$").replace("µ", r"$\mu$")

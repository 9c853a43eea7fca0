"""Tables of a report: once as rows of words, then in Markdown, LaTeX and HTML."""

from __future__ import annotations

import html
from dataclasses import dataclass
from typing import Any

from aaren_rl.evaluation.noninferiority import MOST_SEEDS
from aaren_rl.evaluation.statistics import FEWEST_SEEDS
from aaren_rl.experiments.content import PLACES

RANGE = "range"


@dataclass(frozen=True)
class Table:
    """Words in rows.

    Attributes:
        columns: heads; the first column is text, the others are numbers.
        rows: cells.
        strong: (row, column) of the cells that stand out.
        caption: what it shows.
    """

    columns: list[str]
    rows: list[list[str]]
    strong: set[tuple[int, int]]
    caption: str


def score_table(content: dict[str, Any]) -> Table:
    """The paper's form: a row for each task, mean ± deviation over seeds, the best in bold."""
    labels = list(content["scores"][0]["scores"])
    rows, strong = [], set()
    for number, row in enumerate(content["scores"]):
        cells = [row["task"] + ("" if row["normalized"] else " (return)"), _number(row["data"])]
        means = [None if row["scores"][x] is None else row["scores"][x]["mean"] for x in labels]
        known = [mean for mean in means if mean is not None]
        for column, label in enumerate(labels):
            cells.append(_mean(row["scores"][label]))
            if known and means[column] == max(known):
                strong.add((number, column + 2))
        rows.append(cells)
    averages = {row["contender"]: row["mean"]["value"] for row in content["aggregates"]}
    if averages:
        common = set(content["common_tasks"])
        data = [r["data"] for r in content["scores"] if r["task"] in common]
        cells = ["average", _number(sum(data) / len(data))]
        cells += [_number(averages.get(label)) for label in labels]
        strong |= {
            (len(rows), labels.index(label) + 2)
            for label, mean in averages.items()
            if mean == max(averages.values())
        }
        rows.append(cells)
    seeds = len(content["runs"]["seeds"])
    caption = (
        f"Mean ± standard deviation over {seeds} seed{'s' if seeds > 1 else ''}; each run counts "
        f"by {content['checkpoint']}, {content['episodes']} episodes each. 0 and 100 are the "
        "task's reference returns (D4RL's random and expert ones for the known robots); `data` is "
        "the data's own mean. The best mean of a row is bold."
    )
    return Table(["task", "data", *labels], rows, strong, caption)


def aggregate_table(content: dict[str, Any]) -> Table:
    """IQM, median, mean and optimality gap with their intervals or ranges."""
    names = ("iqm", "median", "mean", "optimality_gap")
    rows = [
        [row["contender"], str(row["runs"]), *(_estimate(row[name]) for name in names)]
        for row in content["aggregates"]
    ]
    tasks = len(content["common_tasks"])
    every = [row[name] for row in content["aggregates"] for name in names]
    caption = (
        f"Over {tasks} task{'s' if tasks != 1 else ''}. {_bounds(every)} IQM is the mean of the "
        "middle half of all runs; the optimality gap, how far runs stay below 100, is better when "
        "small."
    )
    heads = ["agent", "seeds", "IQM", "median", "mean", "optimality gap"]
    return Table(heads, rows, set(), caption)


def task_table(content: dict[str, Any]) -> Table | None:
    """The claim on each task, in numbers and words; `None` without a comparison."""
    compared = content["comparison"]
    if compared is None:
        return None
    rows = [
        [
            row["task"] + ("" if row["normalized"] else " (return)"),
            str(row["seeds"]),
            _number(row["ours_mean"]),
            _number(row["rival_mean"]),
            _estimate(row["difference"], "+.1f"),
            status_words(row),
        ]
        for row in compared["tasks"]
    ]
    margin = f"{compared['margin']:g}"
    caption = (
        f"{compared['ours']} against {compared['best']} on each task. The rule, with a margin of "
        f"{margin} normalised points fixed in the spec: better, when the interval of the "
        f"difference lies above 0; not worse, when its lower end lies above -{margin}; worse, when "
        f"it lies below 0 and reaches to -{margin} or below; else not decided. Differences are "
        f"paired by seed. {_bounds([row['difference'] for row in compared['tasks']])}"
    )
    heads = ["task", "seeds", compared["ours"], compared["best"], "difference of means", "verdict"]
    return Table(heads, rows, set(), caption)


def comparison_table(content: dict[str, Any]) -> Table | None:
    """The claim against each of the rival's modes; `None` without a claim."""
    compared = content["comparison"]
    if compared is None:
        return None
    rows = [
        [
            row["rival"],
            str(row["seeds"]),
            _estimate(row["iqm_difference"], "+.1f"),
            _estimate(row["improvement"], ".2f"),
            status_words(row),
        ]
        for row in compared["against"]
    ]
    strong = {(i, 0) for i, row in enumerate(rows) if row[0] == compared["best"]}
    every = [row[name] for row in compared["against"] for name in ("iqm_difference", "improvement")]
    caption = (
        f"{compared['ours']} against each mode of its rival: difference in IQM, and the chance "
        "that a run of ours scores higher on a random task (0.5: equal). The first line is about "
        "the rival's mode with the highest IQM (bold), which was chosen by its result: that "
        f"favours the rival. Runs are paired by task and seed. {_bounds(every)}"
    )
    heads = ["rival", "seeds", "difference in IQM", "probability of improvement", "verdict"]
    return Table(heads, rows, strong, caption)


def status_words(row: dict[str, Any]) -> str:
    """A verdict for a table: its status, with what is missing for a decision.

    Args:
        row: has the fields of `Verdict`.
    """
    if row["status"] == "no verdict":
        return f"no verdict: {row['reason']}"
    if row["status"] != "not decided":
        return str(row["status"])
    needed = row["seeds_needed"]
    return f"not decided: {'about' if needed else 'more than'} {needed or MOST_SEEDS:,} seeds would"


def cost_table(content: dict[str, Any]) -> Table:
    """Parameters, times and memory."""
    rows = [
        [
            row["contender"],
            f"{row['parameters']:,.0f}",
            f"{row['train_seconds']:,.0f}",
            f"{row['act_microseconds']:,.0f}",
            f"{row['state_bytes_first']:,.0f}",
            f"{row['state_bytes_last']:,.0f}",
            f"{row['peak_bytes'] / 2**20:,.0f}",
        ]
        for row in content["costs"]
    ]
    steps = max(row["steps"] for row in content["costs"])
    heads = ["agent", "parameters", "training, s", "acting, µs a step"]
    heads += ["state at step 1, bytes", f"state at step {steps}, bytes", "peak memory, MiB"]
    caption = (
        "Medians over tasks and seeds. Acting: one environment, at the end of an episode; the "
        "state is all that goes from one step to the next. Peak memory is the whole process', "
        "training included. Times were taken while other runs went on beside."
    )
    return Table(heads, rows, set(), caption)


def error_table(content: dict[str, Any]) -> Table | None:
    """Action error early and late in held-out episodes; `None` when nothing was held out."""
    found = content["errors_by_position"]
    every = {(p["first"], p["last"]) for lines in found.values() for x in lines.values() for p in x}
    if not every:
        return None
    bins = sorted(place for place in every if place[0] in PLACES or place == max(every))
    rows = []
    for task, lines in found.items():
        for label, points in lines.items():
            known = {(point["first"], point["last"]): point["mean"] for point in points}
            cells = [f"{known[place]:.4f}" if place in known else "-" for place in bins]
            rows.append([f"{task}: {label}", *cells])
    heads = ["task and agent"]
    heads += [f"step {b}" if b == a + 1 else f"steps {a + 1} to {b}" for a, b in bins]
    caption = (
        "Action error on held-out episodes by position, without acting: the state carried from the "
        "episode's start against a window that is recomputed. Mean over seeds; squared error with "
        "an action's range as [-1, 1], for discrete actions the share of wrong ones."
    )
    return Table(heads, rows, set(), caption)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}"


def _mean(cell: dict[str, Any] | None) -> str:
    if cell is None:
        return "-"
    return _number(cell["mean"]) + ("" if cell["std"] is None else f" ± {cell['std']:.1f}")


def _estimate(value: dict[str, Any], style: str = ".1f") -> str:
    text = format(value["value"], style)
    if value["bounds"] is None:
        return text
    low, high = format(value["low"], style), format(value["high"], style)
    return f"{text} ({RANGE} {low} to {high})" if _is_range(value) else f"{text} [{low}, {high}]"


def _is_range(value: dict[str, Any]) -> bool:
    return bool(value["bounds"] == RANGE)


def _bounds(values: list[dict[str, Any]]) -> str:
    """What stands behind the numbers of a table, as a sentence or two of its caption."""
    words = []
    if any(value["bounds"] is not None and not _is_range(value) for value in values):
        words.append("In brackets: 95% intervals by the stratified bootstrap (rliable).")
    if any(map(_is_range, values)):
        words.append(
            f"Of fewer than {FEWEST_SEEDS} seeds there is no interval: the smallest and the "
            "largest run are given as their range."
        )
    return " ".join(words)


def to_markdown(table: Table) -> str:
    """A GitHub table with its caption above."""
    lines = [table.caption, "", "| " + " | ".join(table.columns) + " |"]
    lines.append("|" + "|".join(["---", *["---:"] * (len(table.columns) - 1)]) + "|")
    for number, row in enumerate(table.rows):
        cells = [f"**{c}**" if (number, i) in table.strong else c for i, c in enumerate(row)]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def to_latex(table: Table, label: str) -> str:
    """A booktabs table."""
    signs = {
        "±": r"$\pm$",
        "µ": r"$\mu$",
        "%": r"\%",
        "_": r"\_",
        "&": r"\&",
        "#": r"\#",
    }

    def plain(text: str) -> str:
        return "".join(signs.get(sign, sign) for sign in text.replace("`", ""))

    lines = [r"\begin{table}", r"\centering", rf"\caption{{{plain(table.caption)}}}"]
    lines += [rf"\label{{tab:{label}}}", rf"\begin{{tabular}}{{l{'r' * (len(table.columns) - 1)}}}"]
    lines += [r"\toprule", " & ".join(map(plain, table.columns)) + r" \\", r"\midrule"]
    for number, row in enumerate(table.rows):
        cells = [
            rf"\textbf{{{plain(c)}}}" if (number, i) in table.strong else plain(c)
            for i, c in enumerate(row)
        ]
        lines.append(" & ".join(cells) + r" \\")
    lines += [r"\bottomrule", r"\end{tabular}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def to_html(table: Table) -> str:
    """A table that scrolls by itself where the page is narrow."""
    head = "".join(f'<th scope="col">{html.escape(each)}</th>' for each in table.columns)
    body = ""
    for number, row in enumerate(table.rows):
        body += f'<tr><th scope="row">{_strong(table, number, 0, row[0])}</th>'
        body += "".join(
            f"<td>{_strong(table, number, i, cell)}</td>" for i, cell in enumerate(row) if i
        )
        body += "</tr>"
    return (
        f"<p>{html.escape(table.caption.replace('`', ''))}</p>"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table></div>"
    )


def _strong(table: Table, row: int, column: int, text: str) -> str:
    escaped = html.escape(text)
    return f"<strong>{escaped}</strong>" if (row, column) in table.strong else escaped

"""The words of a comparison: how a claim stands, by the rule of `evaluation.noninferiority`."""

from __future__ import annotations

from aaren_rl.evaluation.noninferiority import MOST_SEEDS, Status, Verdict, counted
from aaren_rl.evaluation.statistics import Estimate
from aaren_rl.experiments.content import Content


def verdict(content: Content) -> tuple[str, Status]:
    """A report's first line, and the status that it states."""
    status: Status = "no verdict"
    runs = content.runs
    if content.comparison is None:
        line = _without_comparison(content)
    elif not content.comparison.against:
        line = _of_returns(content)
    else:
        line, status = _of_scores(content)
    if runs.missing:
        line += f" UNFINISHED: {len(runs.missing)} of {runs.asked} runs are missing."
    return line, status


def _of_scores(content: Content) -> tuple[str, Status]:
    compared = content.comparison
    assert compared is not None
    [row] = [row for row in compared.against if row.rival == compared.best]
    margin, ours = f"margin {compared.margin:g} points", compared.ours
    rival = f"{compared.best}, its rival's best mode (chosen by its result)"
    statement = {
        "better": f"{ours} is better than {rival}",
        "not worse": f"{ours} is not worse ({margin}) than {rival}",
        "worse": f"{ours} is WORSE than {rival}",
        "not decided": f"Not decided ({margin}) whether {ours} is worse than {rival}",
        "no verdict": f"No verdict on {ours} against {rival}",
    }[row.verdict.status]
    line = (
        f"{statement}: IQM {row.ours_iqm:.1f} against {row.rival_iqm:.1f}, "
        f"difference {bounded(row.iqm_difference)}, paired over {counted(row.seeds, 'seed')} "
        f"of {counted(len(content.common_tasks), 'task')}; {row.verdict.reason}."
    )
    return line, row.verdict.status


def _of_returns(content: Content) -> str:
    """The returns of both sides, where no task has reference scores."""
    compared = content.comparison
    assert compared is not None
    found = "; ".join(
        f"{row.task} {row.ours_mean:.1f} against {row.rival_mean:.1f}, "
        f"difference {bounded(row.difference)}, paired over {counted(row.seeds, 'seed')}"
        for row in compared.tasks
    )
    return (
        f"No verdict on {compared.ours} against {compared.best}: without reference scores there "
        f"are only returns, to which the margin does not apply. Mean return: {found}."
    )


def _without_comparison(content: Content) -> str:
    """Why there is no comparison, and the best agents when there are any."""
    if content.claimed:
        return (
            "No verdict: the claim's two sides have no seed in common that is finished on the "
            "tasks that all agents have finished."
        )
    if content.aggregates:
        best = max(content.aggregates, key=lambda row: row.iqm.value)
        return f"No claim to decide; the highest IQM is {best.contender}'s, {best.iqm.value:.1f}."
    found = []
    for row in content.scores:
        means = {label: cell.mean for label, cell in row.scores.items() if cell is not None}
        if means:
            best_label = max(means, key=means.__getitem__)
            found.append(f"{row.task} {best_label}, {means[best_label]:.1f}")
    if not found:
        return "No claim to decide, and no scores: the runs had no environment to act in."
    return f"No claim to decide. Highest mean score, or return, of each task: {'; '.join(found)}."


def bounded(value: Estimate) -> str:
    """An estimate in words: `+1.3, 95% interval -2.0 to +4.1`, or with `range`."""
    ends = "" if value.bounds is None else f", {value.bounds} {value.low:+.1f} to {value.high:+.1f}"
    return f"{value.value:+.1f}{ends}"


def status_words(verdict: Verdict) -> str:
    """A verdict for a table: its status, with what is missing for a decision."""
    if verdict.status == "no verdict":
        return f"no verdict: {verdict.reason}"
    if verdict.status != "not decided":
        return verdict.status
    needed = verdict.seeds_needed
    return f"not decided: {'about' if needed else 'more than'} {needed or MOST_SEEDS:,} seeds would"

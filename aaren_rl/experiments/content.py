"""All numbers of a report; tables, pages and pictures only show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from aaren_rl.evaluation.aggregates import (
    Profile,
    aggregates,
    improvement_probability,
    iqm,
    iqm_difference,
    performance_profile,
)
from aaren_rl.evaluation.noninferiority import Verdict, judge
from aaren_rl.evaluation.statistics import Estimate, paired_difference
from aaren_rl.experiments.outcome import Contender, Outcome, rows_of
from aaren_rl.experiments.unit import Row, Summary
from aaren_rl.robots import normalized
from aaren_rl.training.loggers import flattened


@dataclass(frozen=True)
class Runs:
    """What was asked for: how many runs, those that are not finished, and of what."""

    asked: int
    missing: list[str]
    seeds: list[int]
    tasks: list[str]
    agents: list[str]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over seeds (of a sample; `None` for one seed), and the values."""

    mean: float
    std: float | None
    values: list[float]


@dataclass(frozen=True)
class TaskScores:
    """A task's scores: the data's own mean, and each contender's spread by label."""

    task: str
    normalized: bool
    data: float | None
    scores: dict[str, Spread | None]


@dataclass(frozen=True)
class Aggregate:
    """A contender over the common tasks and seeds."""

    contender: str
    runs: int
    iqm: Estimate
    median: Estimate
    mean: Estimate
    optimality_gap: Estimate


@dataclass(frozen=True)
class Against:
    """The claim's `ours` against one mode of its rival, over the common tasks."""

    rival: str
    seeds: int
    ours_iqm: float
    rival_iqm: float
    iqm_difference: Estimate
    improvement: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class TaskClaim:
    """The claim on one task: means and their paired difference, over the seeds of both sides."""

    task: str
    normalized: bool
    seeds: int
    ours_mean: float
    rival_mean: float
    difference: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class Comparison:
    """The claim, over the common tasks (`against` each of the rival's modes) and on each task.

    `best` is the mode that the first line and `tasks` are about.
    """

    ours: str
    margin: float
    best: str
    against: list[Against]
    tasks: list[TaskClaim]


Points = list[dict[str, float]]
"""A curve: at each place, which has its own fields, `mean`, `low` and `high` over seeds."""
Curves = dict[str, dict[str, Points]]
"""Curves by task and label."""


@dataclass(frozen=True)
class CostRow:
    """What a contender costs: medians over tasks and seeds."""

    contender: str
    parameters: float
    train_seconds: float
    peak_bytes: float
    act_microseconds: float
    steps: int
    state_bytes_first: float
    state_bytes_last: float


@dataclass(frozen=True)
class Content:
    """All that a report shows.

    Scores are normalised (0 to 100) where the task has reference scores, else plain returns.

    Attributes:
        checkpoint: which agent of a run counts, in words.
        episodes: of each score.
        common_tasks: the tasks that are averaged over.
        claimed: whether the spec makes a claim.
        settings: `shared` by all runs, and `machine`.
    """

    name: str
    runs: Runs
    checkpoint: str
    episodes: int
    common_tasks: list[str]
    scores: list[TaskScores]
    aggregates: list[Aggregate]
    claimed: bool
    comparison: Comparison | None
    profiles: dict[str, Profile]
    learning_curves: Curves
    conditioning: Curves
    errors_by_position: Curves
    costs: list[CostRow]
    settings: dict[str, Any]


def report_content(outcome: Outcome) -> Content:
    """All numbers of a benchmark's outcome."""
    spec = outcome.spec
    asked = len(outcome.tasks) * len(outcome.agents) * len(outcome.seeds)
    last = f"the mean over the agents of its last {spec.kept} evaluations"
    tables = [(x.label, outcome.paired([x], outcome.common_tasks)) for x in outcome.contenders]
    known = {label: found[0] for label, found in tables if found is not None}
    return Content(
        name=spec.name,
        runs=Runs(asked, outcome.missing, outcome.seeds, outcome.tasks, outcome.agents),
        checkpoint="its last agent" if spec.kept == 1 else last,
        episodes=spec.evaluation.episodes,
        common_tasks=outcome.common_tasks,
        scores=[_scores(outcome, task) for task in outcome.tasks],
        aggregates=[Aggregate(x, len(table), **aggregates(table)) for x, table in known.items()],
        claimed=spec.claim is not None,
        comparison=comparison(outcome),
        profiles=_profiles(known),
        learning_curves=_by_task(outcome, outcome.agents, _learning_curve),
        conditioning=_by_task(outcome, outcome.contenders, _conditioning),
        errors_by_position=_by_task(outcome, _measured_offline(outcome), _errors),
        costs=[_cost(outcome, each) for each in outcome.contenders],
        settings=_settings(outcome),
    )


def to_json(record: Any) -> Any:
    """Dataclasses as JSON values; those of `verdict` and `estimate` stand with their owner's."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        content: dict[str, Any] = {}
        for field in dataclasses.fields(record):
            value = to_json(getattr(record, field.name))
            inline = field.name in ("verdict", "estimate")
            content.update(value if inline else {field.name: value})
        return content
    if isinstance(record, dict):
        return {name: to_json(value) for name, value in record.items()}
    return [to_json(each) for each in record] if isinstance(record, (list, tuple)) else record


def _spread(values: Iterable[float]) -> Spread:
    numbers = list(values)
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return Spread(float(np.mean(numbers)), deviation, numbers)


def _scores(outcome: Outcome, task: str) -> TaskScores:
    scores = {each.label: outcome.scores(task, each).values() for each in outcome.contenders}
    every = [result for agent in outcome.agents for result in outcome.of(task, agent).values()]
    # An agent that learns from the best episodes alone has seen other data: the others' count.
    every.sort(key=lambda result: -result.unit["config"]["top_percent"])
    return TaskScores(
        task,
        outcome.normalized(task),
        every[0].summary.dataset_score if every else None,
        {label: _spread(values) if values else None for label, values in scores.items()},
    )


def comparison(outcome: Outcome) -> Comparison | None:
    """The claim's two sides, with runs paired by task and seed.

    `best` is the rival's mode with the highest IQM; where no task has normalised scores, its first.
    `None` when the spec makes no claim or the sides have no finished runs in common.
    """
    claim = outcome.spec.claim
    if claim is None:
        return None
    ours = outcome.contender(claim.ours, claim.mode)
    rivals = [each for each in outcome.contenders if each.agent == claim.rival and each != ours]
    pairs = [(rival, outcome.paired([ours, rival], outcome.common_tasks)) for rival in rivals]
    against = [_against(rival, pair, claim.margin) for rival, pair in pairs if pair is not None]
    if outcome.common_tasks and not against:
        return None
    best = max(against, key=lambda each: each.rival_iqm).rival if against else ""
    rival = next((each for each in rivals if each.label == best), (rivals or [ours])[0])
    tasks = _task_claims(outcome, ours, rival, claim.margin)
    return Comparison(ours.label, claim.margin, rival.label, against, tasks) if tasks else None


def _against(rival: Contender, pair: list[np.ndarray], margin: float) -> Against:
    ours, theirs = pair
    difference = iqm_difference(ours, theirs)
    chance = improvement_probability(ours, theirs)
    found = judge(difference, margin, seeds=len(ours), runs=ours.size)
    return Against(rival.label, len(ours), iqm(ours), iqm(theirs), difference, chance, found)


def _task_claims(
    outcome: Outcome, ours: Contender, rival: Contender, margin: float
) -> list[TaskClaim]:
    rows = []
    for task in outcome.tasks:
        pair = outcome.paired([ours, rival], [task])
        if pair is None or ours == rival:
            continue
        difference, seeds = paired_difference(*(scores[:, 0] for scores in pair)), len(pair[0])
        normalized = outcome.normalized(task)
        verdict = judge(difference, margin, seeds=seeds, normalized=normalized)
        mean, other = (float(scores.mean()) for scores in pair)
        rows.append(TaskClaim(task, normalized, seeds, mean, other, difference, verdict))
    return rows


def _profiles(tables: dict[str, np.ndarray]) -> dict[str, Profile]:
    if not tables:
        return {}
    top = max(float(table.max()) for table in tables.values())
    bottom = min(0.0, *(float(table.min()) for table in tables.values()))
    thresholds = np.linspace(bottom, 1.05 * max(top, 1.0), 101)
    return {label: performance_profile(table, thresholds) for label, table in tables.items()}


def over_seeds(tables: list[dict[Any, float]], *names: str) -> Points:
    """A curve of what each seed has, at the places that all seeds have."""
    places = [place for place in (tables or [{}])[0] if all(place in table for table in tables)]
    curve = []
    for place in places:
        values = [table[place] for table in tables]
        at = zip(names, place if isinstance(place, tuple) else (place,), strict=True)
        ends = {"mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        curve.append({**dict(at), **ends})
    return curve


def _by_task(
    outcome: Outcome, keys: list[Any], line: Callable[[Outcome, str, Any], Points]
) -> Curves:
    """A curve for each task and key that has any point."""
    curves: Curves = {}
    for task in outcome.tasks:
        for key in keys:
            if points := line(outcome, task, key):
                curves.setdefault(task, {})[getattr(key, "label", key)] = points
    return curves


def _learning_curve(outcome: Outcome, task: str, agent: str) -> Points:
    """Score by update, from the evaluations in training."""
    # The main target is asked for first: its rows, last in the reversed order, count.
    histories = [reversed(r.summary.history) for r in outcome.of(task, agent).values()]
    tables = [{row.update: row.score_mean for row in history} for history in histories]
    return over_seeds([dict(sorted(table.items())) for table in tables], "update")


def _conditioning(outcome: Outcome, task: str, contender: Contender) -> Points:
    """Achieved score by the score asked for."""
    results = outcome.of(task, contender.agent).values()
    rows = [rows_of(result, contender, "curve") for result in results]
    return over_seeds([{_asked_score(r): r.score_mean for r in each} for each in rows], "asked")


def _asked_score(row: Row) -> float:
    """A target return on the scale of the row's scores (which is linear in the return)."""
    assert row.target_return is not None
    if row.reference_scores is None or not row.normalized:
        return row.target_return
    return round(normalized(row.target_return, row.reference_scores), 6)


def _measured_offline(outcome: Outcome) -> list[Contender]:
    """The agents in the modes in which action errors are measured."""
    modes = [(agent, mode) for agent in outcome.agents for mode in ("carry", "window")]
    every = [outcome.contender(*each) for each in modes]
    return [each for each in every if each.remembers or each.mode == "carry"]


def _errors(outcome: Outcome, task: str, key: Contender) -> Points:
    return error_curve([r.summary for r in outcome.of(task, key.agent).values()], key.mode)


def error_curve(summaries: Iterable[Summary], mode: str) -> Points:
    """Action error on held-out episodes over the steps `first` to `last`, that excluded."""
    found = [summary.errors for summary in summaries if summary.errors]
    tables = [{(row.first, row.last): getattr(row, mode) for row in rows} for rows in found]
    return over_seeds(tables, "first", "last")


def _cost(outcome: Outcome, contender: Contender) -> CostRow:
    every = [outcome.of(task, contender.agent).values() for task in outcome.tasks]
    results = [result for each in every for result in each]
    acting = [cost for r in results for cost in r.costs if cost.mode == contender.mode]

    def median(records: Iterable[Any], name: str) -> float:
        return float(np.median([getattr(record, name) for record in records]))

    return CostRow(
        contender=contender.label,
        parameters=median((r.summary for r in results), "parameters"),
        train_seconds=median((r.summary for r in results), "train_seconds"),
        peak_bytes=median(results, "peak_bytes"),
        act_microseconds=median(acting, "act_microseconds"),
        steps=max(cost.steps for cost in acting),
        state_bytes_first=median(acting, "state_bytes_first"),
        state_bytes_last=median(acting, "state_bytes_last"),
    )


def _settings(outcome: Outcome) -> dict[str, Any]:
    results = list(outcome.results.values())
    flat = [flattened(result.unit["config"]) for result in results]
    same = {n: v for n, v in flat[0].items() if all(n in c and c[n] == v for c in flat)}
    names = ("torch", "device", "threads")
    machine = {name: sorted({str(getattr(r, name)) for r in results}) for name in names}
    return {"shared": same, "machine": machine}

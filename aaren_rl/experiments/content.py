"""All numbers of a report, as plain JSON values; the pages and pictures only show them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from aaren_rl.evaluation.aggregates import (
    aggregates,
    improvement_probability,
    iqm,
    iqm_difference,
    performance_profile,
)
from aaren_rl.evaluation.noninferiority import judge
from aaren_rl.evaluation.statistics import paired_difference
from aaren_rl.experiments.outcome import Contender, Outcome

PLACES = (0, 1, 10, 100, 1000)  # first steps of the positions that the table of errors shows


def report_content(outcome: Outcome) -> dict[str, Any]:
    """Everything that `report.json` holds.

    Scores are normalised (0 to 100) where the task has reference scores, else plain returns.
    """
    versus = comparison(outcome)
    return {
        "name": outcome.spec.name,
        "runs": {
            "asked": outcome.asked,
            "missing": outcome.missing,
            "seeds": outcome.seeds,
            "tasks": outcome.tasks,
            "agents": outcome.agents,
        },
        "checkpoint": checkpoint_rule(outcome),
        "episodes": outcome.spec.evaluation.episodes,
        "common_tasks": outcome.common_tasks,
        "scores": score_rows(outcome),
        "aggregates": aggregate_rows(outcome),
        "claimed": outcome.spec.claim is not None,
        "comparison": versus,
        "profiles": profiles(outcome),
        "learning_curves": learning_curves(outcome),
        "conditioning": conditioning(outcome),
        "errors_by_position": errors_by_position(outcome),
        "costs": costs(outcome),
        "settings": run_settings(outcome),
    }


def checkpoint_rule(outcome: Outcome) -> str:
    """Which agent of a run counts, in words."""
    if outcome.spec.kept == 1:
        return "its last agent"
    return f"the mean over the agents of its last {outcome.spec.kept} evaluations"


def spread(values: Iterable[float]) -> dict[str, Any]:
    """Mean, standard deviation over seeds (of a sample; `None` for one seed) and each value."""
    numbers = [float(value) for value in values]
    deviation = float(np.std(numbers, ddof=1)) if len(numbers) > 1 else None
    return {"mean": float(np.mean(numbers)), "std": deviation, "values": numbers}


def score_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """A row for each task, with the data's own mean and each contender's score."""
    rows = []
    for task in outcome.tasks:
        found = {each: outcome.scores(task, each) for each in outcome.contenders}
        every = [r for agent in outcome.agents for r in outcome.of(task, agent).values()]
        # An agent that learns from the best episodes alone has seen other data: the others' count.
        data = [
            r["summary"]["dataset_score"]
            for r in sorted(every, key=lambda r: -r["unit"]["config"]["top_percent"])[:1]
        ]
        rows.append(
            {
                "task": task,
                "normalized": outcome.normalized(task),
                "data": data[0] if data else None,
                "scores": {
                    each.label: spread(scores.values()) if scores else None
                    for each, scores in found.items()
                },
            }
        )
    return rows


def aggregate_rows(outcome: Outcome) -> list[dict[str, Any]]:
    """IQM, median, mean and optimality gap of each contender over the common tasks and seeds."""
    rows = []
    for contender in outcome.contenders:
        table = outcome.table(contender)
        if table is not None:
            numbers = {name: dataclasses.asdict(e) for name, e in aggregates(table).items()}
            rows.append({"contender": contender.label, "runs": len(table), **numbers})
    return rows


def comparison(outcome: Outcome) -> dict[str, Any] | None:
    """The claim's two sides: difference in IQM and chance of improvement, against each mode.

    `best` is the rival's mode with the highest IQM: the hardest to beat, chosen by its result. Runs
    are paired by task and seed. `None` when the spec makes no claim or the sides have no finished
    runs in common.
    """
    claim = outcome.spec.claim
    if claim is None:
        return None
    ours = outcome.contender(claim.ours, claim.mode)
    rows: list[dict[str, Any]] = []
    for rival in outcome.contenders:
        pair = outcome.paired([ours, rival], outcome.common_tasks)
        if rival.agent != claim.rival or rival == ours or pair is None:
            continue
        difference = iqm_difference(*pair)
        seeds = len(pair[0])
        judged = judge(difference, claim.margin, seeds=seeds, runs=pair[0].size)
        rows.append(
            {
                "rival": rival.label,
                "seeds": seeds,
                "ours_iqm": iqm(pair[0]),
                "rival_iqm": iqm(pair[1]),
                "iqm_difference": dataclasses.asdict(difference),
                "improvement": dataclasses.asdict(improvement_probability(*pair)),
                **dataclasses.asdict(judged),
            }
        )
    if not rows:
        return None
    best = max(rows, key=lambda row: row["rival_iqm"])
    [rival] = [each for each in outcome.contenders if each.label == best["rival"]]
    return {
        "ours": ours.label,
        "margin": claim.margin,
        "best": best["rival"],
        "against": rows,
        "tasks": task_rows(outcome, ours, rival, claim.margin),
    }


def task_rows(
    outcome: Outcome, ours: Contender, rival: Contender, margin: float
) -> list[dict[str, Any]]:
    """The claim on each task: means and their paired difference, over the seeds of both."""
    rows = []
    for task in outcome.tasks:
        pair = outcome.paired([ours, rival], [task])
        if pair is None:
            continue
        difference = paired_difference(*pair)
        normalized = outcome.normalized(task)
        judged = judge(difference, margin, seeds=len(pair[0]), normalized=normalized)
        rows.append(
            {
                "task": task,
                "normalized": normalized,
                "seeds": len(pair[0]),
                "ours_mean": float(pair[0].mean()),
                "rival_mean": float(pair[1].mean()),
                "difference": dataclasses.asdict(difference),
                **dataclasses.asdict(judged),
            }
        )
    return rows


def profiles(outcome: Outcome) -> dict[str, Any]:
    """Each contender's performance profile over the common tasks."""
    tables = {each: outcome.table(each) for each in outcome.contenders}
    known = {each: table for each, table in tables.items() if table is not None}
    if not known:
        return {}
    top = max(float(table.max()) for table in known.values())
    bottom = min(0.0, *(float(table.min()) for table in known.values()))
    thresholds = np.linspace(bottom, 1.05 * max(top, 1.0), 101)
    return {
        each.label: dataclasses.asdict(performance_profile(table, thresholds))
        for each, table in known.items()
    }


def over_seeds(tables: list[dict[float, float]], name: str) -> list[dict[str, Any]]:
    """Mean, lowest and highest value over seeds at each place that all seeds have.

    Args:
        tables: for each seed, a value by place.
        name: what a place is called.
    """
    if not tables:
        return []
    places = [place for place in tables[0] if all(place in table for table in tables)]
    return [
        {name: place, "mean": float(np.mean(values)), "low": min(values), "high": max(values)}
        for place in places
        for values in [[table[place] for table in tables]]
    ]


def _by_task(
    outcome: Outcome, keys: list[Any], line: Callable[[str, Any], list[dict[str, Any]]]
) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """A line for each task and key that has any point."""
    found = {
        task: {getattr(key, "label", key): line(task, key) for key in keys}
        for task in outcome.tasks
    }
    return {
        task: {label: points for label, points in lines.items() if points}
        for task, lines in found.items()
        if any(lines.values())
    }


def learning_curves(outcome: Outcome) -> dict[str, Any]:
    """Score by update, as the evaluations in training (in the first mode) found it."""

    def line(task: str, agent: str) -> list[dict[str, Any]]:
        tables = []
        for result in outcome.of(task, agent).values():
            first: dict[float, float] = {}  # the main target's: it is asked for first
            for row in result["summary"]["history"]:
                first.setdefault(row["update"], row["score_mean"])
            tables.append(first)
        return over_seeds(tables, "update")

    return _by_task(outcome, outcome.agents, line)


def conditioning(outcome: Outcome) -> dict[str, Any]:
    """Achieved score by the score asked for."""

    def line(task: str, contender: Contender) -> list[dict[str, Any]]:
        tables = []
        for result in outcome.of(task, contender.agent).values():
            rows = outcome.rows(result, contender, "curve")
            tables.append({asked_score(row): row["score_mean"] for row in rows})
        return over_seeds(tables, "asked")

    return _by_task(outcome, outcome.contenders, line)


def asked_score(row: dict[str, Any]) -> float:
    """A target return on the scale of the row's scores (which is linear in the return)."""
    target = float(row["target_return"])
    if not row["normalized"]:
        return target
    low, high = row["reference_scores"]
    return round(100 * (target - low) / (high - low), 6)


def errors_by_position(outcome: Outcome) -> dict[str, Any]:
    """Action error on held-out episodes by position, carried state and recomputed window."""

    def line(task: str, key: Contender) -> list[dict[str, Any]]:
        tables = []
        for result in outcome.of(task, key.agent).values():
            if result["summary"]["offline"]:
                lengths = result["summary"]["offline"][-1]["lengths"]
                tables.append({(row["first"], row["last"]): row[key.mode] for row in lengths})
        return [
            {"first": row["place"][0], "last": row["place"][1], **_without(row, "place")}
            for row in over_seeds(tables, "place")  # type: ignore[arg-type]
        ]

    keys = [
        key
        for agent in outcome.agents
        for mode in ("carry", "window")
        if (key := outcome.contender(agent, mode)).remembers or mode == "carry"
    ]
    return _by_task(outcome, keys, line)


def _without(row: dict[str, Any], name: str) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != name}


def costs(outcome: Outcome) -> list[dict[str, Any]]:
    """Parameters, training and acting time, and memory: medians over tasks and seeds."""
    rows = []
    for contender in outcome.contenders:
        results = [
            result
            for task in outcome.tasks
            for result in outcome.of(task, contender.agent).values()
        ]
        acting = [c for r in results for c in r["costs"] if c["mode"] == contender.mode]
        rows.append(
            {
                "contender": contender.label,
                "parameters": _median(r["summary"]["parameters"] for r in results),
                "train_seconds": _median(r["summary"]["train_seconds"] for r in results),
                "peak_bytes": _median(r["peak_bytes"] for r in results),
                "act_microseconds": _median(c["act_microseconds"] for c in acting),
                "steps": max(cost["steps"] for cost in acting),
                "state_bytes_first": _median(c["state_bytes_first"] for c in acting),
                "state_bytes_last": _median(c["state_bytes_last"] for c in acting),
            }
        )
    return rows


def _median(values: Iterable[float]) -> float:
    return float(np.median(list(values)))


def run_settings(outcome: Outcome) -> dict[str, Any]:
    """What all runs share, and on what they ran."""
    results = list(outcome.results.values())
    configs = [result["unit"]["config"] for result in results]
    flat = [{**_without(config, "model"), **config["model"]} for config in configs]
    shared = {name: value for name, value in flat[0].items() if all(c[name] == value for c in flat)}
    names = ("torch", "device", "threads")
    machine = {name: sorted({str(result[name]) for result in results}) for name in names}
    return {"shared": shared, "machine": machine}

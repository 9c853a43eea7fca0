"""Several agents, several seeds, one dataset, one log directory."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from aaren_rl.data import TrajectoryDataset
from aaren_rl.evaluation import mean_interval
from aaren_rl.evaluation.noninferiority import Verdict, judge
from aaren_rl.evaluation.statistics import Bounds, Estimate, paired_difference
from aaren_rl.experiments.config import CompareConfig, check_results
from aaren_rl.experiments.content import error_curve, to_json
from aaren_rl.experiments.plots import error_panel, looks_of, saved, sheet
from aaren_rl.experiments.tensorboard import (
    write_acting_costs,
    write_mean_curves,
    write_pictures,
)
from aaren_rl.experiments.unit import COST_STEPS, Summary, read_record, varying_settings
from aaren_rl.experiments.verdict import bounded, status_words
from aaren_rl.files import write_bytes, write_json
from aaren_rl.records import typed
from aaren_rl.training.build import is_leader, load_data
from aaren_rl.training.config import agent_class
from aaren_rl.training.presets import from_settings
from aaren_rl.training.run import train_config
from aaren_rl.training.run_folder import SUMMARY_FILE, RunFolder

COMPARISON_FILE = "comparison.json"


@dataclass(frozen=True)
class Difference:
    """An agent's scores less the first agent's, paired by seed, and what may be said of it."""

    to: str
    to_target_return: float | None
    margin: float
    estimate: Estimate
    verdict: Verdict


@dataclass(frozen=True)
class ComparisonRow:
    """An agent asked for one return: the last agents' scores over seeds.

    Attributes:
        target_return: `None` for an agent that cannot be asked.
        normalized: whether scores are normalised (0 to 100), or plain returns.
        score_mean: over seeds; `None`, as its ends, when there was no environment to act in.
        score_low: lower end of the mean's 95% interval, or of the seeds' range; `bounds` says
            which. `score_high` is the upper end.
        seeds: whose `scores` these are; all seeds when there are no scores.
        train_seconds: mean over seeds.
        held_out_errors: of each seed, the action error on held-out episodes over all positions, in
            the row's mode; empty when nothing was held out or the mode is not measured.
        difference: to the first agent; `None` in its own rows, and without scores.
    """

    agent: str
    mode: str
    target_return: float | None
    normalized: bool
    score_mean: float | None
    score_low: float | None
    score_high: float | None
    bounds: Bounds | None
    scores: list[float]
    seeds: list[int]
    parameters: int
    train_seconds: float
    held_out_errors: list[float]
    difference: Difference | None = None


def compare(
    data: CompareConfig | TrajectoryDataset | Path | str, **settings: Any
) -> list[ComparisonRow]:
    """Train what is not trained yet, then summarise.

        rows = compare("mujoco/hopper/medium-v0", seeds=(0, 1, 2), updates=1500, out="runs/c")

    Args:
        data: a dataset, or its name or path; or all settings in one.
        settings: the other fields of `CompareConfig`, and those of `AgentConfig`.

    Returns:
        A row for each agent and target return, as `comparison.json` holds them; none in all
        processes but the first.

    Raises:
        UserError: as `train`.
        Interrupted: after Ctrl-C; with `resume` the same call continues.
    """
    given = data if isinstance(data, TrajectoryDataset) else None
    if isinstance(data, CompareConfig):
        config = data
    else:
        name = data.name if isinstance(data, TrajectoryDataset) else str(data)
        out = Path(settings.get("out", CompareConfig.out))
        config = from_settings(CompareConfig, {**settings, "dataset": name, "out": out})
    config = typed(config, "compare()")
    config.check()
    check_results(config, given)
    observations = (given or load_data(config)).observations[:COST_STEPS]
    runs = {agent: [config.run(agent, seed) for seed in config.seeds] for agent in config.agents}
    varying = varying_settings([run for each in runs.values() for run in each])
    summaries: dict[str, list[Summary]] = {}
    for agent, each in runs.items():
        for run in each:
            title = f"{agent}, seed {run.seed}, on {run.dataset}"
            train_config(run, given, title=title, varying=varying)
        if is_leader():
            folders = [run.run_folder for run in each]
            summaries[agent] = [read_record(each / SUMMARY_FILE, Summary) for each in folders]
            write_acting_costs(config.out / agent, RunFolder(folders[0]).last, observations)
    if not is_leader():
        return []
    rows = with_differences(
        [row for agent, found in summaries.items() for row in summarise(agent, found)],
        config.margin,
    )
    write_json(config.out / COMPARISON_FILE, to_json(rows))
    write_mean_curves(config.out, summaries)
    _write_errors(config.out, summaries)
    return rows


def summarise(agent: str, summaries: list[Summary]) -> list[ComparisonRow]:
    """A row for each target return; one without scores for an agent that did not act."""
    first = summaries[0]
    acted = [summary for summary in summaries if summary.scores]  # a failed evaluation has none
    rows = []
    for evaluated in list(zip(*(summary.scores for summary in acted), strict=True)) or [()]:
        scores = [each.score_mean for each in evaluated]
        mean = mean_interval(np.array(scores)) if scores else None
        rows.append(
            ComparisonRow(
                agent=agent,
                mode=first.mode,
                target_return=evaluated[0].target_return if evaluated else None,
                normalized=bool(evaluated) and evaluated[0].normalized,
                score_mean=mean.value if mean else None,
                score_low=mean.low if mean else None,
                score_high=mean.high if mean else None,
                bounds=mean.bounds if mean else None,
                scores=scores,
                seeds=[summary.seed for summary in acted or summaries],
                parameters=first.parameters,
                train_seconds=float(np.mean([summary.train_seconds for summary in summaries])),
                held_out_errors=_held_out_errors(summaries),
            )
        )
    return rows


def _held_out_errors(summaries: list[Summary]) -> list[float]:
    """Each seed's action error in its mode: the mean over the steps that were measured."""
    found = []
    for summary in summaries:
        if summary.errors and summary.mode in ("carry", "window"):
            errors = [getattr(row, summary.mode) for row in summary.errors]
            steps = [row.steps for row in summary.errors]
            found.append(float(np.average(errors, weights=steps)))
    return found


def with_differences(rows: list[ComparisonRow], margin: float) -> list[ComparisonRow]:
    """Each row with its `difference` to the first agent, where both have scores.

    The other row is the first agent's that was asked for the same return, or its first when there
    is none (an agent that cannot be asked for a return has one row).
    """
    own = [row for row in rows if row.agent == rows[0].agent]
    every = []
    for row in rows:
        other = next((each for each in own if each.target_return == row.target_return), own[0])
        difference = None
        ours, theirs = (dict(zip(x.seeds, x.scores, strict=False)) for x in (row, other))
        pairs = np.array([(ours[seed], theirs[seed]) for seed in ours if seed in theirs])
        if row.agent != other.agent and len(pairs):
            estimate = paired_difference(pairs[:, 0], pairs[:, 1])
            normalized = row.normalized and other.normalized
            verdict = judge(estimate, margin, seeds=len(pairs), normalized=normalized)
            place = (other.agent, other.target_return, margin)
            difference = Difference(*place, estimate, verdict)
        every.append(dataclasses.replace(row, difference=difference))
    return every


def shown(config: CompareConfig, rows: list[ComparisonRow]) -> tuple[str, list[dict[str, Any]]]:
    """The title and rows that the command line prints.

    Scores with their differences; without scores, errors on held-out episodes.
    """
    title = f"{config.dataset}, seeds {' '.join(map(str, config.seeds))}: "
    bounds = next((row.bounds for row in rows if row.bounds), None)
    if bounds is None:
        title += "no environment, so no scores: mean action error on held-out episodes"
    else:
        title += f"mean and {bounds}; difference to {config.agents[0]}, paired by seed, margin "
        title += f"{config.margin:g}"
    cells = []
    for row in rows:
        found: dict[str, Any]
        if bounds is None:
            errors = row.held_out_errors
            found = {
                "held_out_error": f"{np.mean(errors):.4f}" if errors else None,
                "range": f"{min(errors):.4f} to {max(errors):.4f}" if errors else None,
            }
        else:
            found = {
                "target_return": row.target_return,
                "score_mean": row.score_mean,
                bounds: f"{row.score_low:,.1f} to {row.score_high:,.1f}",
                "difference": row.difference and bounded(row.difference.estimate),
                "verdict": row.difference and status_words(row.difference.verdict),
            }
        cells.append({"agent": row.agent, "mode": row.mode, **found})
        cells[-1] |= {"parameters": row.parameters, "train_seconds": row.train_seconds}
    return title, cells


def _write_errors(folder: Path, summaries: dict[str, list[Summary]]) -> None:
    """Action error by position, as `length_error.png` and on TensorBoard's images page."""
    curves = {
        f"{agent} ({mode})": error_curve(found, mode)
        for agent, found in summaries.items()
        for mode in ("carry", "window")
        if mode == "carry" or agent_class(agent).has_memory
    }
    curves = {label: points for label, points in curves.items() if points}
    if not curves:
        return
    panel = error_panel("held-out episodes", curves)
    figure = sheet([panel], looks_of(list(summaries), list(curves)))
    write_bytes(folder / "length_error.png", saved(figure, "png"))
    write_pictures(folder / "pictures", {"action_error_by_position": figure})

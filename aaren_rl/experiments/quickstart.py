"""The first minutes with the library: both sequence agents on the shipped data, side by side."""

from __future__ import annotations

from typing import Any

from aaren_rl.experiments.config import QuickstartConfig
from aaren_rl.experiments.spec import BenchmarkSpec, ContenderSpec, EvaluationSpec, TaskSpec
from aaren_rl.experiments.unit import RESULT_FILE, Result, read_record, units, work
from aaren_rl.files import make_folder, write_json
from aaren_rl.training.run_folder import SUMMARY_FILE

QUICKSTART_DATASET = "aaren-rl/hopper-small-v0"
MODES = {
    "decision-aaren": ("carry", "reset", "window"),
    "decision-transformer": ("window", "carry"),
}
COLUMNS = (
    "agent",
    "mode",
    "score_mean",
    "score_std",
    "episodes",
    "train_seconds",
    "act_microseconds",
    "state_bytes_step_1",
    "state_bytes_step_1000",
)


def quickstart(config: QuickstartConfig) -> list[dict[str, Any]]:
    """Train, act, measure; writes `summary.json`."""
    spec = BenchmarkSpec(
        name="quickstart",
        tasks={"hopper-small": TaskSpec(QUICKSTART_DATASET)},
        agents={name: ContenderSpec(name, modes) for name, modes in MODES.items()},
        seeds=(config.seed,),
        settings={
            "updates": config.updates,
            "device": "cpu",
            "evaluate_every": max(1, config.updates // 2),
            "episodes": 4,
        },
        evaluation=EvaluationSpec(episodes=config.episodes),
    )
    todo = units(spec, config.out)
    for unit in todo:
        unit.config.check()
    make_folder(config.out)
    rows: list[dict[str, Any]] = []
    for unit in todo:
        work(unit)
        result = read_record(unit.folder / RESULT_FILE, Result)
        for score, cost in zip(result.rows, result.costs, strict=True):
            measured = {
                **vars(score),
                "train_seconds": result.summary.train_seconds,
                "act_microseconds": cost.act_microseconds,
                "state_bytes_step_1": cost.state_bytes_first,
                "state_bytes_step_1000": cost.state_bytes_last,
            }
            rows.append({name: measured[name] for name in COLUMNS})
    write_json(config.out / SUMMARY_FILE, rows)
    return rows

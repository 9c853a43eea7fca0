"""The first minutes with the library: both sequence agents on the shipped data, side by side."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from aaren_rl.experiments.results import Result, read_record
from aaren_rl.experiments.spec import BenchmarkSpec, ContenderSpec, EvaluationSpec, TaskSpec
from aaren_rl.experiments.unit import RESULT_FILE, make_folder, units, work
from aaren_rl.files import write_json
from aaren_rl.training.run import SUMMARY_FILE

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


@dataclass(frozen=True)
class QuickstartConfig:
    """Train Decision Aaren and Decision Transformer on the Hopper data inside the package.

    Then act with both and print what came of it. A second call goes on where a first was stopped,
    and trains nothing twice.
    """

    out: Path = Path("runs/quickstart")
    """Folder to leave the runs and summary.json in."""
    updates: int = 600
    """Gradient updates for each agent."""
    episodes: int = 10
    """Episodes for each row of the table."""
    seed: int = 0
    """Seed of everything random."""

    def benchmark(self) -> BenchmarkSpec:
        """The two runs."""
        settings = {
            "updates": self.updates,
            "device": "cpu",
            "evaluate_every": max(1, self.updates // 2),
            "episodes": 4,
        }
        return BenchmarkSpec(
            name="quickstart",
            tasks={"hopper-small": TaskSpec(QUICKSTART_DATASET)},
            agents={name: ContenderSpec(name, modes) for name, modes in MODES.items()},
            seeds=(self.seed,),
            settings=settings,
            evaluation=EvaluationSpec(episodes=self.episodes),
        )


def quickstart(config: QuickstartConfig) -> list[dict[str, Any]]:
    """Train, act, measure; writes `summary.json`.

    Returns:
        A row for each agent and mode, with the fields of `COLUMNS`.
    """
    todo = units(config.benchmark(), config.out)
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

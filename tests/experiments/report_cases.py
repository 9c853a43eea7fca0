"""A benchmark's folder whose scores are known, written as the units write theirs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from sweep_cases import spec

from aaren_rl.experiments.spec import parse_spec
from aaren_rl.experiments.sweep import BENCHMARK_FILE
from aaren_rl.experiments.unit import RESULT_FILE, Unit, units
from aaren_rl.files import write_json

LOW, HIGH = -20.0, 3230.0
LEVEL = {"decision-aaren": 70.0, "decision-transformer": 60.0, "bc": 50.0}
MODE = {"carry": 0.0, "window": -4.0, "sliding": -9.0}


def score_of(unit: Unit, mode: str, update: int = 20) -> float:
    """A unit's score: by agent, mode, task, seed and update."""
    step = -2.0 if update == 10 else 0.0
    task = 10.0 if unit.task == "hopper-best" else 0.0
    return LEVEL[unit.agent] + MODE[mode] + task + 3.0 * unit.seed + step


def _row(unit: Unit, mode: str, kind: str, target: float | None, score: float) -> dict[str, Any]:
    return {
        "agent": unit.agent,
        "mode": mode,
        "kind": kind,
        "target_return": target,
        "score_mean": score,
        "score_std": 0.0,
        "return_mean": LOW + (HIGH - LOW) * score / 100,
        "return_std": 0.0,
        "length_mean": 9.0,
        "episodes": 1,
        "returns": [1.0],
        "lengths": [9],
        "normalized": True,
        "reference_scores": [LOW, HIGH],
    }


def result_of(unit: Unit) -> dict[str, Any]:
    """As `work` would leave it."""
    conditioned = unit.agent != "bc"
    rows = []
    for mode in unit.modes:
        for update in (10, 20):
            score = score_of(unit, mode, update)
            target = 3600.0 if conditioned else None
            rows.append({**_row(unit, mode, "score", target, score), "update": update})
        for asked in (30.0, 90.0) if conditioned else ():
            target = LOW + (HIGH - LOW) * asked / 100
            achieved = 0.8 * asked + unit.seed
            rows.append({**_row(unit, mode, "curve", target, achieved), "update": 20})
    bins = [(0, 1), (1, 10), (10, 20), (20, 50), (100, 200), (500, 1000)]
    lengths = [
        {"first": a, "last": b, "carry": 0.1 + b / 1e4, "window": 0.1, "steps": 9} for a, b in bins
    ]
    history = [
        {
            "update": update,
            "target_return": 3600.0,
            "score_mean": score_of(unit, unit.modes[0], update),
        }
        for update in (10, 20)
    ]
    summary = {
        "dataset_score": 55.0,
        "parameters": 1000 if unit.agent == "bc" else 1500,
        "train_seconds": 12.0 + unit.seed,
        "history": history,
        "offline": [{"update": 20, "lengths": lengths}],
        "seed": unit.seed,
    }
    costs = [
        {
            "mode": mode,
            "act_microseconds": 100.0,
            "steps": 1000,
            "state_bytes_first": 64,
            "state_bytes_last": 64 if mode == "carry" else 640,
        }
        for mode in unit.modes
    ]
    return {
        "unit": unit.to_json(),
        "summary": summary,
        "rows": rows,
        "costs": costs,
        "peak_bytes": 2**29,
        "torch": "2.0",
        "device": "cpu",
        "threads": 1,
    }


def write_results(folder: Path, skip: tuple[str, ...] = (), **changes: Any) -> Path:
    """A benchmark's folder; the units in `skip` are not finished."""
    read = parse_spec(spec(**changes), "spec")
    asked = {"tasks": list(read.tasks), "agents": list(read.agents), "seeds": list(read.seeds)}
    write_json(folder / BENCHMARK_FILE, {"spec": read.to_json(), "asked": asked})
    for unit in units(read, folder):
        if unit.name not in skip:
            write_json(unit.folder / RESULT_FILE, result_of(unit))
    return folder

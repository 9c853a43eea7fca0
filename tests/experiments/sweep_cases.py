"""A benchmark of seconds, and what two sweeps must share to have the same tables."""

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import yaml

from aaren_rl.files import read_card

SPEC: dict[str, Any] = {
    "name": "tiny",
    "seeds": [0, 1],
    "checkpoint": {"mean_of_last": 2},
    "settings": {
        "updates": 20,
        "batch_size": 8,
        "learning_rate": 1e-3,
        "evaluate_every": 10,
        "episodes": 1,
        "log_every": 5,
        "device": "cpu",
        "environment": "Hopper-v5?max_episode_steps=40",
        "held_out": 0.0,
        "width": 16,
        "layers": 1,
        "context_length": 5,
    },
    "tasks": {
        "hopper-all": {"dataset": "aaren-rl/hopper-small-v0"},
        "hopper-best": {
            "dataset": "aaren-rl/hopper-small-v0",
            "settings": {"top_percent": 50, "held_out": 0.05},
        },
    },
    "agents": {
        "decision-aaren": {"modes": ["carry", "window"]},
        "decision-transformer": {"modes": ["window", "sliding"]},
        "bc": {"agent": "behavior-cloning"},
    },
    "evaluation": {"episodes": 2, "curve_scores": [30, 90], "curve_episodes": 1},
    "claim": {"ours": "decision-aaren", "mode": "carry", "rival": "decision-transformer"},
}


def spec(**changes: Any) -> dict[str, Any]:
    """The tiny benchmark with some fields replaced; `None` takes a field out."""
    content = {**copy.deepcopy(SPEC), **changes}
    return {name: value for name, value in content.items() if value is not None}


def write_spec(file: Path, **changes: Any) -> Path:
    file.write_text(yaml.safe_dump(spec(**changes), sort_keys=False))
    return file


def results(out: Path) -> dict[str, Any]:
    """Every unit's result without what time and this process' memory decide."""
    found = {}
    for file in sorted(out.rglob("result.json")):
        content = read_card(file)
        assert content.pop("peak_bytes") > 1e6
        assert content["summary"].pop("train_seconds") > 0
        for row in content["summary"]["history"]:
            assert row.pop("train_seconds") > 0
        for cost in content["costs"]:
            assert cost.pop("act_microseconds") > 0
        found[str(file.parent.relative_to(out))] = content
    return found

"""The agents of the last evaluations, which a benchmark's rule may count."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from run_cases import signal_at_batch, weights

from aaren_rl.agents import load_agent
from aaren_rl.errors import UserError
from aaren_rl.training import Interrupted, RunFolder, train


def kept_weights(run: Path) -> dict[str, bytes]:
    folders = sorted((run / "agents").iterdir())
    return {folder.name: (folder / "agent.safetensors").read_bytes() for folder in folders}


def test_the_last_evaluations_agents_are_kept(tiny: Callable[..., Any], tmp_path: Path) -> None:
    settings = {"evaluate_every": 12, "episodes": 1, "keep_evaluated": 2}
    train(tiny(tmp_path / "run", **settings))
    kept = kept_weights(tmp_path / "run")
    assert list(kept) == ["update-24", "update-30"]
    assert kept["update-30"] == weights(tmp_path / "run")
    assert kept["update-24"] != kept["update-30"]
    assert load_agent(RunFolder(tmp_path / "run").kept(24)).name == "decision-aaren"

    stopped = tiny(tmp_path / "stopped", **settings)
    with pytest.MonkeyPatch.context() as patch:
        signal_at_batch(patch, "windows", 26)
        with pytest.raises(Interrupted):
            train(stopped)
    train(dataclasses.replace(stopped, resume=True))
    assert kept_weights(tmp_path / "stopped") == kept


def test_which_updates_are_kept(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for updates, every, keep, wanted in (
        (30, 15, 2, [15, 30]),
        (31, 15, 2, [30, 31]),
        (30, 40, 1, [30]),
        (30, 10, 0, []),
    ):
        config = tiny(tmp_path, updates=updates, evaluate_every=every, keep_evaluated=keep)
        config.check()
        assert config.kept_updates == wanted


def test_bad_numbers_and_modes(tiny: Callable[..., Any], tmp_path: Path) -> None:
    for changes, words in (
        ({"keep_evaluated": 3}, "--keep-evaluated must be .* at most the 2 evaluations, got 3"),
        ({"keep_evaluated": -1}, "--keep-evaluated must be at least 0"),
        ({"mode": "sliding"}, "--mode sliding: decision-aaren knows carry, reset, window"),
    ):
        with pytest.raises(UserError, match=words):
            tiny(tmp_path, **changes).check()
    tiny(tmp_path, agent="decision-transformer", mode="sliding").check()

"""Runs that are stopped, and what two runs must share to be the same run."""

from __future__ import annotations

import json
import signal
from pathlib import Path
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aaren_rl.data import EpisodeSampler, StreamSampler, WindowSampler


def without_times(content: dict[str, Any]) -> dict[str, Any]:
    """A run's summary or progress without seconds and what depends on them."""
    history = [{**row, "train_seconds": None} for row in content["history"]]
    logged = {**content.get("logged", {}), "training/tokens_per_second": None}
    kept = {name: value for name, value in content.items() if name != "sha256"}
    return {**kept, "train_seconds": None, "history": history, "logged": logged}


def weights(run: Path, checkpoint: str = "last") -> bytes:
    return (run / checkpoint / "agent.safetensors").read_bytes()


def summary(run: Path) -> dict[str, Any]:
    """The run's summary without what time decides."""
    content = json.loads((run / "summary.json").read_text())
    assert content["train_seconds"] > 0
    return without_times(content)


def progress(run: Path) -> dict[str, Any]:
    """The last checkpoint's progress without what time decides."""
    content: dict[str, Any] = json.loads((run / "last" / "training.json").read_text())
    return without_times(content)


def scalars(run: Path) -> dict[str, list[tuple[int, float]]]:
    """All scalars in the run's events, (update, value) by tag."""
    events = EventAccumulator(str(run), size_guidance={"scalars": 0})
    events.Reload()
    return {
        tag: [(event.step, event.value) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def deterministic(entries: dict[str, list[tuple[int, float]]]) -> dict[str, Any]:
    """Scalars without what time decides."""
    timed = ("training/tokens_per_second", "final/train_seconds")
    return {
        tag: [step for step, _ in values] if tag in timed else values
        for tag, values in entries.items()
    }


def assert_same_run(run: Path, wanted: Path) -> None:
    """Everything that a run leaves, to the bit; only seconds may differ."""
    for checkpoint in ("last", "best"):
        for file in ("agent.safetensors", "agent.json"):
            one, other = (folder / checkpoint / file for folder in (run, wanted))
            assert one.read_bytes() == other.read_bytes(), (checkpoint, file)
    tensors = "last/training.safetensors"
    assert (run / tensors).read_bytes() == (wanted / tensors).read_bytes()
    best = "best/training.json"
    assert (run / best).read_bytes() == (wanted / best).read_bytes()
    assert summary(run) == summary(wanted)
    assert progress(run) == progress(wanted)
    assert deterministic(scalars(run)) == deterministic(scalars(wanted))
    leftovers = {file.name for file in run.rglob("*")} - {file.name for file in wanted.rglob("*")}
    assert all(name.startswith("events.") for name in leftovers), leftovers


SAMPLERS: dict[str, Any] = {
    "windows": WindowSampler,
    "episodes": EpisodeSampler,
    "streams": StreamSampler,
}


def signal_at_batch(patch: pytest.MonkeyPatch, sampling: str, number: int) -> None:
    """Ctrl-C while batch `number` (from 1, of this call of `train`) is drawn."""
    sampler = SAMPLERS[sampling]
    original, count = sampler.sample, 0

    def sample(self: Any) -> Any:
        nonlocal count
        count += 1
        if count == number:
            signal.raise_signal(signal.SIGINT)
        return original(self)

    patch.setattr(sampler, "sample", sample)

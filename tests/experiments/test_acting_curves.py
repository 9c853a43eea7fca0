"""Acting costs by environment step, in TensorBoard."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exported_agents import make_agent
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from aaren_rl.experiments import unit
from aaren_rl.experiments.tensorboard import write_acting_costs

OBSERVATIONS = np.random.default_rng(0).normal(size=(40, 11)).astype(np.float32)


@pytest.fixture(autouse=True)
def _steps(monkeypatch: pytest.MonkeyPatch) -> None:
    """As many as users get; the other tests of this folder take fewer."""
    monkeypatch.setattr(unit, "COST_STEPS", 1000)


def curve(folder: Path, name: str) -> tuple[list[int], list[float]]:
    events = EventAccumulator(str(folder)).Reload().Scalars(f"acting/{name}")
    return [event.step for event in events], [event.value for event in events]


def written(folder: Path, name: str, **config: object) -> list[str]:
    agent = make_agent(name, **config)  # type: ignore[arg-type]
    agent.save(folder / "seed-3" / "last")
    write_acting_costs(folder, folder / "seed-3" / "last", OBSERVATIONS)
    return sorted(each.name for each in folder.iterdir() if each.name != "seed-3")


def test_aarens_state_is_flat_and_its_time_adds_up(tmp_path: Path) -> None:
    assert written(tmp_path, "decision-aaren") == ["acting-carry-seed-3"]
    steps, sizes = curve(tmp_path / "acting-carry-seed-3", "state_bytes")
    assert (steps[0], steps[-1], len(steps)) == (1, 1000, 50)
    assert set(sizes) == {4 * (32 + 1) + 3 * 4 + 2 * 8}
    _, so_far = curve(tmp_path / "acting-carry-seed-3", "cumulated_milliseconds")
    assert so_far == sorted(so_far)
    assert so_far[0] > 0
    _, each = curve(tmp_path / "acting-carry-seed-3", "microseconds")
    # Medians of neighbouring steps: on a busy machine they are far below the mean.
    assert 0 < np.mean(each) < 3 * so_far[-1]  # of 1,000 steps, in milliseconds


def test_the_transformers_cache_grows_and_its_window_does_not(tmp_path: Path) -> None:
    folders = written(
        tmp_path, "decision-transformer", timestep_embedding="learned", max_episode_length=60
    )
    assert folders == ["acting-carry-seed-3", "acting-window-seed-3"]
    steps, cache = curve(tmp_path / "acting-carry-seed-3", "state_bytes")
    assert steps[-1] == 60  # as far as its timestep table goes
    token = 2 * 32 * 4  # key and value
    assert cache[-1] - cache[0] == 3 * 59 * token
    assert len(set(curve(tmp_path / "acting-window-seed-3", "state_bytes")[1])) == 1


def test_written_again_there_is_one_curve(tmp_path: Path) -> None:
    for _ in range(2):
        written(tmp_path, "decision-aaren", timestep_embedding="learned", max_episode_length=20)
    assert curve(tmp_path / "acting-carry-seed-3", "state_bytes")[0] == list(range(1, 21))
    assert len(list((tmp_path / "acting-carry-seed-3").glob("events.*"))) == 1


def test_an_agent_without_a_past_has_no_curves(tmp_path: Path) -> None:
    assert written(tmp_path, "behavior-cloning") == []

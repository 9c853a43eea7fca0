"""Float64 columns whose values float32 cannot tell apart are named in a warning."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from aaren_rl.data import TrajectoryDataset, load_dataset
from aaren_rl.data.rounding import SAMPLE, Rounding

STEPS = 800
STEP = np.arange(STEPS, dtype=np.float64)
ENDS = STEP % 100 == 99
JUMPS = np.where(STEP < 40, 0, 1e8) + 0.1 * STEP  # no one offset holds both parts
PLAIN = np.random.default_rng(0).normal(size=STEPS)
FINE = {"observations": PLAIN[:, None], "actions": np.tanh(PLAIN)[:, None]}
WARNING = "keeps fewer than 90% of the distinct values of column(s)"


@pytest.mark.parametrize("field", ["observations", "actions"])
@pytest.mark.parametrize("on", ["memory", "disk"])
def test_columns_that_float32_blurs_are_named(
    field: str, on: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "plant.npz"
    mixed: dict[str, Any] = {**FINE, field: np.stack([PLAIN, JUMPS, 1.0 + 1e-9 * PLAIN], axis=1)}
    np.savez(file, **mixed, rewards=STEP, terminals=ENDS)
    data = load_dataset(file, on=on, cache=tmp_path / "cache")
    stored = getattr(data, field)[:]
    assert len(np.unique(stored[:, 1])) < 0.5 * STEPS  # as is said
    said = [message for message in caplog.messages if WARNING in message]
    assert said == [f"{file}: {field}: float32, in which they are stored, {WARNING} 1"]


def test_in_a_part_of_a_dict(caplog: pytest.LogCaptureFixture) -> None:
    """Columns count over all parts; narrow ones, which are stored as they are, lose nothing."""
    image = np.zeros((STEPS, 2), np.uint8)
    parts = {"a": PLAIN[:, None], "b": image, "c": JUMPS[:, None]}
    TrajectoryDataset.from_arrays(parts, FINE["actions"], STEP, ENDS, name="parts")
    [said] = [message for message in caplog.messages if WARNING in message]
    assert said.endswith("column(s) 3")


def test_columns_that_float32_holds_are_not_named(caplog: pytest.LogCaptureFixture) -> None:
    """Numbers near 1, the same with noise, seconds less their middle, and one value."""
    columns = [PLAIN, 1.7e9 + STEP, np.full(STEPS, 0.1), 1.0 + 1e-9 * PLAIN]
    data = TrajectoryDataset.from_arrays(
        np.stack(columns, axis=1), FINE["actions"], STEP, ENDS, name="fine"
    )
    assert data.observation_offset is not None
    assert WARNING not in caplog.text


def test_the_sample_is_bounded() -> None:
    rounding = Rounding()
    for _ in range(4):
        rounding.add(np.ones((SAMPLE // 3, 2)))
    assert sum(map(len, rounding._blocks)) == SAMPLE
    wide = Rounding()
    wide.add(np.ones((100, 84 * 84 * 4)))
    assert sum(block.nbytes for block in wide._blocks) <= 1 << 24

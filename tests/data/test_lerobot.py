"""LeRobot's datasets: files of many episodes (v3) and of one each (v2), made by pyarrow."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from aaren_rl.data import load_dataset
from aaren_rl.errors import UserError

LENGTHS, STEPS = [3, 4, 2], 9
STATES = np.random.default_rng(0).normal(size=(STEPS, 2)).astype(np.float32)
GOALS = np.random.default_rng(1).normal(size=(STEPS, 3)).astype(np.float32)
ACTIONS = np.tanh(GOALS[:, :2])
ENDS = [False, False, True, False, False, False, False, False, True]


def columns() -> dict[str, Any]:
    def fixed(values: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(values.reshape(-1)), values.shape[1])

    return {
        "observation.state": fixed(STATES),
        "action": pa.array(ACTIONS.tolist(), pa.list_(pa.float32())),
        "episode_index": np.repeat([0, 1, 2], LENGTHS),
        "frame_index": np.concatenate([np.arange(length) for length in LENGTHS]),
        "timestamp": np.arange(STEPS) / 10,
        "next.reward": np.arange(1, STEPS + 1, dtype=np.float32),
        "next.done": ENDS,
        "observation.images.top": [{"bytes": b"png", "path": None}] * STEPS,
    }


def dataset(
    folder: Path, *, files: list[slice], left_out: tuple[str, ...] = (), **changes: Any
) -> Path:
    """A folder with one Parquet file for each slice of the rows."""
    given = {**columns(), **changes}
    table = pa.table({name: values for name, values in given.items() if name not in left_out})
    (folder / "data" / "chunk-000").mkdir(parents=True)
    (folder / "meta").mkdir()
    for index, rows in enumerate(files):
        part = table.slice(rows.start, rows.stop - rows.start)
        pq.write_table(part, folder / "data" / "chunk-000" / f"file-{index:03d}.parquet")
    features = {name: {"dtype": "float32", "shape": [1]} for name in table.column_names}
    info = {"codebase_version": "v3.0", "total_frames": STEPS, "features": features}
    (folder / "meta" / "info.json").write_text(json.dumps(info))
    return folder


WHOLE = [slice(0, 9)]
EACH = [slice(0, 3), slice(3, 7), slice(7, 9)]


@pytest.mark.parametrize("files", [WHOLE, EACH], ids=["v3", "v2"])
def test_both_layouts(files: list[slice], tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    folder = dataset(tmp_path / "pusht", files=files)
    data = load_dataset(folder)
    assert data.name == "pusht"
    assert data.lengths.tolist() == LENGTHS
    assert data.terminated.tolist() == [True, False, True]
    assert data.truncated.tolist() == [False, True, False]
    np.testing.assert_array_equal(data.observations, STATES)
    np.testing.assert_allclose(data.actions, ACTIONS)
    assert data.rewards.tolist() == list(range(1, 10))
    assert f"{folder}: left out, since they are not states: observation.images.top" in caplog.text
    on_disk = load_dataset(folder, on="disk", cache=tmp_path / "cache")
    np.testing.assert_array_equal(on_disk.observations, STATES)


def test_hidden_files_are_left_out(tmp_path: Path) -> None:
    folder = dataset(tmp_path / "copied", files=WHOLE)
    (folder / "data" / "chunk-000" / "._file-000.parquet").write_bytes(b"of macOS")
    assert load_dataset(folder).lengths.tolist() == LENGTHS


def test_other_columns(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """The state of the environment is joined; actions of one value; no rewards and no ends."""
    changes = {"observation.environment_state": GOALS.tolist(), "action": ACTIONS[:, 0]}
    folder = dataset(
        tmp_path / "one", files=WHOLE, left_out=("next.reward", "next.done"), **changes
    )
    data = load_dataset(folder)
    np.testing.assert_array_equal(data.observations, np.concatenate([STATES, GOALS], 1))
    np.testing.assert_array_equal(data.actions, ACTIONS[:, :1])
    assert not data.rewards.any()
    assert "no next.reward: all rewards are taken as 0" in caplog.text
    assert data.truncated.all()


def test_ends_inside_an_episode_are_said(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    data = load_dataset(dataset(tmp_path / "one", files=EACH, **{"next.done": [True] * 9}))
    assert data.lengths.tolist() == LENGTHS
    assert caplog.text.count("one: next.done before the last step of an episode") == 1


UNEVEN = [[0.0] * (1 + index % 2) for index in range(STEPS)]
BAD: dict[str, tuple[dict[str, Any], str]] = {
    "rows missing": ({"files": [slice(0, 3), slice(4, 9)]}, "episode 1: frame_index does not"),
    "a file missing": ({"files": EACH[:2]}, "7 rows in data, total_frames in meta/info.json: 9"),
    "uneven": ({"action": UNEVEN}, "file-000.parquet: action: rows of different lengths"),
    "empty": ({"action": [None, *[0.0] * 8]}, "file-000.parquet: action: a row without a value"),
    "words": ({"action": ["left"] * 9}, "action: values of type string: numbers expected"),
    "no flags": ({"next.done": [0.5] * 9}, "file-000.parquet: next.done: other values than 0 and"),
    "NaN for flags": ({"next.done": [np.nan] * 9}, "next.done: other values than 0 and 1"),
    "no action": ({"left_out": ("action",)}, "meta/info.json: features: 'action' missing"),
    "no files": ({"files": []}, "no data/chunk-000/*.parquet, which LeRobot's v2 and v3 have"),
}


@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, tmp_path: Path) -> None:
    changes, message = BAD[name]
    folder = dataset(tmp_path / "bad", **{"files": WHOLE, **changes})
    with pytest.raises(UserError) as error:
        load_dataset(folder)
    assert message in str(error.value)


def test_damaged_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = dataset(tmp_path / "bad", files=WHOLE)
    file = folder / "data" / "chunk-000" / "file-000.parquet"
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"file-000\.parquet: does not read as Parquet: "):
        load_dataset(folder)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(UserError, match=r"needs pyarrow: pip install 'aaren-rl\[lerobot\]'"):
        load_dataset(folder)
    (folder / "meta" / "info.json").write_text('{"features": []}')
    with pytest.raises(UserError, match=r"info\.json: does not read as LeRobot's"):
        load_dataset(folder)

"""d3rlpy's files, in both of its layouts."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import load_dataset
from aaren_rl.errors import UserError

LENGTHS, STEPS = [3, 4, 2], 9
OBSERVATIONS = np.random.default_rng(0).normal(size=(STEPS, 2)).astype(np.float32)
ENDS = np.array([0, 0, 1, 0, 0, 0, 1, 0, 1], np.float32)


def version_1(path: Path, **changes: Any) -> Path:
    arrays: dict[str, Any] = {
        "observations": OBSERVATIONS,
        "actions": np.arange(STEPS, dtype=np.float32) % 3,
        "rewards": np.arange(1, STEPS + 1, dtype=np.float32),
        "terminals": ENDS * [1, 1, 1, 1, 1, 1, 1, 0, 0],
        "episode_terminals": ENDS,
        "discrete_action": True,
        **changes,
    }
    with h5py.File(path, "w") as file:
        for name, values in arrays.items():
            file[name] = values
    return path


def test_version_1(tmp_path: Path) -> None:
    data = load_dataset(version_1(tmp_path / "cartpole.h5"))
    assert data.name == "cartpole"
    assert data.lengths.tolist() == LENGTHS
    assert data.terminated.tolist() == [True, True, False]
    assert data.truncated.tolist() == [False, False, True]
    assert data.action_space == spaces.Discrete(3)
    np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    assert data.rewards.tolist() == list(range(1, 10))


def test_rewards_of_arriving(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """First files: row t has the reward of action t - 1, and the last row's action is no one's."""
    rewards = np.array([0, 5, 6, 0, 7, 8, 9, 0, 4], np.float32)
    data = load_dataset(version_1(tmp_path / "old.h5", rewards=rewards))
    assert data.lengths.tolist() == [2, 3, 1]
    assert data.rewards.tolist() == [5, 6, 7, 8, 9, 4]
    assert data.actions.tolist() == [0, 1, 0, 1, 2, 1]
    np.testing.assert_array_equal(data.observations, OBSERVATIONS[[0, 1, 3, 4, 5, 7]])
    assert "the reward of the action before it" in caplog.text
    sparse = np.array([0, 0, 1, 0, 0, 0, 1, 0, 0], np.float32)  # zeros say nothing here
    data = load_dataset(version_1(tmp_path / "sparse.h5", rewards=sparse))
    assert data.lengths.tolist() == LENGTHS


def version_2(path: Path, *, parts: bool = False) -> Path:
    with h5py.File(path, "w") as file:
        file["columns"] = ["observations", "actions", "rewards", "terminated"]
        file["num_episodes"] = 3
        file["version"] = "2.1"
        stop = 0
        for index, length in enumerate(LENGTHS):
            rows = slice(stop, stop + length)
            stop += length
            if parts:
                for part in range(2):
                    file[f"observations_{index}_{part}"] = OBSERVATIONS[rows, part : part + 1]
            else:
                file[f"observations_{index}"] = OBSERVATIONS[rows]
            file[f"actions_{index}"] = OBSERVATIONS[rows] / 4
            file[f"rewards_{index}"] = np.ones((length, 1), np.float32)
            file[f"terminated_{index}"] = index != 1
    return path


@pytest.mark.parametrize("parts", [False, True])
def test_version_2(tmp_path: Path, parts: bool) -> None:
    data = load_dataset(version_2(tmp_path / "new.h5", parts=parts))
    assert data.lengths.tolist() == LENGTHS
    assert data.terminated.tolist() == [True, False, True]
    assert data.truncated.tolist() == [False, True, False]
    np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    assert data.action_space == spaces.Box(-1, 1, (2,), np.float32)


def test_ends_that_do_not_fit_are_called_as_in_the_file(tmp_path: Path) -> None:
    for name, ends, message in (
        ("short.h5", ENDS[:7], "7 flags for 9 actions; equal numbers expected"),
        ("twos.h5", 2 * ENDS, "other values than 0 and 1; flags expected"),
    ):
        file = version_1(tmp_path / name, episode_terminals=ends)
        with pytest.raises(UserError) as caught:
            load_dataset(file)
        said = f"{file}: episode_terminals: {message} (read as a d3rlpy file (v1))"
        assert str(caught.value) == said


def test_fewer_episodes_than_are_there(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    file = version_2(tmp_path / "more.h5")
    load_dataset(file)
    assert "num_episodes" not in caplog.text
    with h5py.File(file, "r+") as content:
        content["num_episodes"][()] = 2
    assert load_dataset(file).num_episodes == 2
    assert "more.h5: num_episodes: 2, and the file holds 3: the first 2 are read" in caplog.text


@pytest.mark.parametrize(
    ("marks", "message"),
    [
        (np.nan, ": other values than 0 and 1; flags expected"),
        ("False", ": values of type |S5: numbers expected"),
        ([0, 1, 0], " before the last step; give one episode each"),
        ([0, 1], ": 2 flags for 3 steps; one, or one a step, expected"),
    ],
)
def test_an_end_that_is_no_flag(tmp_path: Path, marks: Any, message: str) -> None:
    file = version_2(tmp_path / "new.h5")
    with h5py.File(file, "r+") as content:
        del content["terminated_0"]
        content["terminated_0"] = marks
    with pytest.raises(UserError) as caught:
        load_dataset(file)
    assert str(caught.value) == f"{file}: terminated_0{message} (read as a d3rlpy file (v2))"


def test_broken_files_are_named_with_their_format(tmp_path: Path) -> None:
    short = version_1(tmp_path / "short.h5", rewards=np.ones(4, np.float32))
    with pytest.raises(UserError, match=r"short.h5: 4 rows of rewards for 9 actions"):
        load_dataset(short)
    file = version_2(tmp_path / "gap.h5")
    with h5py.File(file, "r+") as content:
        del content["actions_1"]
    with pytest.raises(
        UserError, match=r"gap.h5: episode 1: array 'actions_1' missing \(read as a d3rlpy file"
    ):
        load_dataset(file)
    with h5py.File(file, "r+") as content:
        del content["num_episodes"]
    with pytest.raises(UserError, match=r"num_episodes: missing; d3rlpy files have it"):
        load_dataset(file)

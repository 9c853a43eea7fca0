"""D4RL's recordings stop inside an episode: left out unless asked for, and said once."""

from __future__ import annotations

import logging
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.data.trajectory import STEP_FIELDS
from aaren_rl.errors import UserError
from aaren_rl.training import train
from aaren_rl.training.build import load_data


@pytest.fixture(params=["memory", "disk"])
def load(request: pytest.FixtureRequest, tmp_path: Path) -> Callable[..., TrajectoryDataset]:
    """As training reads its data."""
    return lambda source, keep_unfinished_episode=False, env=None: load_trajectories(
        source,
        env=env,
        on=request.param,
        cache=tmp_path / "cache",
        keep_unfinished_episode=keep_unfinished_episode,
    )


Load = Callable[..., TrajectoryDataset]


def test_the_unfinished_episode_is_left_out_unless_asked_for(load: Load, d4rl_file: Any) -> None:
    dropped = load(d4rl_file.path)
    kept = load(d4rl_file.path, keep_unfinished_episode=True)
    assert (dropped.num_episodes, kept.num_episodes) == (d4rl_file.episodes, d4rl_file.episodes + 1)
    assert kept.lengths[-1] == d4rl_file.unfinished_steps
    for field in STEP_FIELDS:
        ours, theirs = (np.asarray(getattr(data, field)) for data in (dropped, kept))
        np.testing.assert_array_equal(ours, theirs[: dropped.num_steps], err_msg=field)
    again = load(d4rl_file.path)  # the entries of a cache are not confused
    assert again.num_steps == dropped.num_steps


def test_velocities_are_masked_of_the_same_episodes(load: Load, d4rl_file: Any) -> None:
    name = f"mask-velocity:{d4rl_file.path}"
    assert load(name).num_episodes == d4rl_file.episodes
    assert load(name, keep_unfinished_episode=True).num_episodes == d4rl_file.episodes + 1


def test_it_is_said_once(
    load: Load, d4rl_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(shutil.copy(d4rl_file.path, tmp_path / "hopper_medium-v2.hdf5"))
    with caplog.at_level(logging.WARNING, "aaren_rl"):
        load(file, env="Hopper-v5", keep_unfinished_episode=True)
        assert not caplog.records
        for _ in range(3):
            load(file, env="Hopper-v5")
    [record] = caplog.records
    assert record.getMessage().startswith(f"{file}: the last episode is unfinished")
    assert "--keep-unfinished-episode" in record.getMessage()


def test_a_whole_file_loses_nothing(
    load: Load, d4rl_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = Path(shutil.copy(d4rl_file.path, tmp_path / "hopper_medium-v2.hdf5"))
    with h5py.File(file, "r+") as content:
        content["timeouts"][-1] = True
    assert load(file, env="Hopper-v5").num_episodes == d4rl_file.episodes + 1
    assert not caplog.records


def test_the_only_episode_is_kept(
    load: Load, d4rl_file: Any, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A dataset without episodes would be an error."""
    file = Path(shutil.copy(d4rl_file.path, tmp_path / "hopper_medium-v2.hdf5"))
    with h5py.File(file, "r+") as content:
        content["timeouts"][:] = content["terminals"][:] = False
        steps = len(content["timeouts"])
    data = load(file)
    assert (data.num_episodes, data.num_steps) == (1, steps)
    assert "the only episode is unfinished" in caplog.text


def test_a_run_trains_on_what_it_was_told(
    tiny: Callable[..., Any], d4rl_file: Any, tmp_path: Path
) -> None:
    """The agent's statistics are those of the data that it saw."""
    from aaren_rl.agents import load_agent

    for keep in (False, True):
        out = tmp_path / str(keep)
        settings = {"updates": 1, "environment": "none", "dataset": str(d4rl_file.path)}
        flags = {"keep_unfinished_episode": True} if keep else {}  # training leaves it out
        train(tiny(out, **flags, **settings))
        data = load_trajectories(d4rl_file.path, keep_unfinished_episode=keep)
        mean, _ = data.observation_statistics()
        np.testing.assert_array_equal(load_agent(out / "last").observation_mean.numpy(), mean)


def test_one_line_each_on_stderr(d4rl_file: Any) -> None:
    """Without any logging set up, as on the command line."""
    load = f"load_trajectories({str(d4rl_file.path)!r}, keep_unfinished_episode=False)"
    code = f"from aaren_rl.data import load_trajectories; {load}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.startswith(f"{d4rl_file.path}: the last episode is unfinished")
    guess = "no action space is known: Box(-1.0, 1.0, (3,), float32) is taken from the data"
    assert done.stderr.splitlines()[1:] == [f"{d4rl_file.path}: {guess}"]


def test_the_command_cuts_where_the_file_does_not(
    tiny: Callable[..., Any], d4rl_file: Any, tmp_path: Path
) -> None:
    file = Path(shutil.copy(d4rl_file.path, tmp_path / "hopper_medium-v2.hdf5"))
    with h5py.File(file, "r+") as content:
        del content["timeouts"]
        content["terminals"][:] = False
    config = tiny(
        tmp_path / "run", dataset=str(file), environment="none", episode_length=50, held_out=0.0
    )
    assert load_data(config).max_episode_length == 50
    with pytest.raises(UserError, match="data source 'minari' has no options, got episode_length"):
        load_data(tiny(tmp_path / "run", episode_length=50))

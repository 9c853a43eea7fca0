from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import gymnasium
import minari
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import Trajectory, load_trajectories
from aaren_rl.data.to_minari import write_minari
from aaren_rl.errors import UserError

SPACES: dict[str, Any] = {
    "observation_space": spaces.Box(-np.inf, np.inf, (2,), np.float32),
    "action_space": spaces.Discrete(3),
}


def episodes(lengths: tuple[int, ...] = (3, 1, 5)) -> list[Trajectory]:
    generator = np.random.default_rng(0)
    return [
        Trajectory(
            generator.normal(size=(length + 1, 2)).astype(np.float32),
            generator.integers(3, size=length),
            generator.normal(size=length),
            terminated=index % 2 == 0,
            truncated=index % 2 == 1,
        )
        for index, length in enumerate(lengths)
    ]


def test_minari_and_we_read_what_was_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    spec = copy.deepcopy(gymnasium.spec("CartPole-v1"))  # the registry keeps its own
    spec.kwargs["sutton_barto_reward"] = True
    written = episodes()
    folder = write_minari(
        "some/where/test-v2",
        written,
        env_spec=spec,
        metadata={"ref_min_score": 1.0, "ref_max_score": 2.0, "author": {"me"}},
        **SPACES,
    )
    assert folder == tmp_path / "some" / "where" / "test-v2"
    theirs, ours = minari.load_dataset("some/where/test-v2"), load_trajectories(folder)
    assert list(minari.list_local_datasets()) == ["some/where/test-v2"]
    assert set(minari.namespace.list_local_namespaces()) == {"some", "some/where"}
    assert theirs.total_steps == ours.num_steps == 9
    assert theirs.storage.metadata["author"] == {"me"}
    assert theirs.recover_environment().spec.kwargs == ours.env_spec.kwargs == spec.kwargs
    assert ours.reference_scores == (1.0, 2.0)
    for index, (raw, episode) in enumerate(zip(written, theirs, strict=True)):
        part = ours.episode(index)
        np.testing.assert_array_equal(episode.observations, raw.observations)
        np.testing.assert_array_equal(part.observations, raw.observations[:-1])
        for other in (part, episode):
            np.testing.assert_array_equal(other.actions, raw.actions)
            np.testing.assert_array_equal(other.rewards, raw.rewards)
        assert (part.terminated, part.truncated) == (raw.terminated, raw.truncated)
        ends = [False] * (len(raw.rewards) - 1)
        assert episode.terminations.tolist() == [*ends, raw.terminated]
        assert episode.truncations.tolist() == [*ends, raw.truncated]


def test_a_relative_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_minari("some/test-v0", episodes(), root=Path("minari"), **SPACES)
    assert load_trajectories(tmp_path / "minari/some/test-v0").num_episodes == 3


def test_half_a_dataset_is_none(tmp_path: Path) -> None:
    broken = episodes()
    broken[2] = Trajectory(np.zeros((5, 2)), np.zeros(5, int), np.zeros(5), True, False)
    with pytest.raises(UserError, match=r"episode 2: 5 observations for 5 actions.* 6"):
        write_minari("test/broken-v0", broken, root=tmp_path, **SPACES)
    assert not [file for file in tmp_path.rglob("*") if file.is_file()]


def test_what_is_there_stays(tmp_path: Path) -> None:
    folder = write_minari("test/twice-v0", episodes(), root=tmp_path, **SPACES)
    with pytest.raises(UserError, match="twice-v0: there already"):
        write_minari("test/twice-v0", episodes((1,)), root=tmp_path, **SPACES)
    assert load_trajectories(folder).num_episodes == 3
    assert sorted(file.name for file in folder.parent.iterdir()) == [
        "namespace_metadata.json",
        "twice-v0",
    ]
    mask = os.umask(0)
    os.umask(mask)
    assert folder.stat().st_mode & 0o777 == 0o777 & ~mask


@pytest.mark.parametrize("name", ["no version", "test/noversion", "../up-v0", "/abs-v0", ""])
def test_names_that_minari_does_not_take(tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match="namespace/name-v0 expected"):
        write_minari(name, episodes(), root=tmp_path, **SPACES)


def test_a_root_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written"):
        write_minari("test/new-v0", episodes(), root=tmp_path / "file", **SPACES)

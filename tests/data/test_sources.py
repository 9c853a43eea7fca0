from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import Any

import minari
import numpy as np
import pytest

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.data.sources.load import SHIPPED_ROOT
from aaren_rl.errors import UserError

SHIPPED_ID = "aaren-rl/hopper-small-v0"


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty home folder, and no variables that point elsewhere; nobody to download from."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("MINARI_DATASETS_PATH", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    return tmp_path


def test_the_shipped_dataset_needs_nothing_and_leaves_nothing(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(home / "elsewhere"))
    data = load_trajectories(SHIPPED_ID)
    assert data.name == SHIPPED_ID
    assert os.environ["MINARI_DATASETS_PATH"] == str(home / "elsewhere")
    assert not list(home.iterdir())


def test_the_shipped_dataset_is_minaris(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(SHIPPED_ROOT))
    dataset = minari.load_dataset(SHIPPED_ID)
    assert list(minari.list_local_datasets()) == [SHIPPED_ID]
    assert "aaren-rl" in minari.namespace.list_local_namespaces()
    assert dataset.recover_environment().spec.id == "Hopper-v5"
    metadata = dataset.storage.metadata
    assert metadata["ref_min_score"] == -20.272305
    assert metadata["ref_max_score"] == 3234.3
    assert metadata["author"]
    assert "mujoco-zoo/hopper/medium-v0" in metadata["description"]


def test_the_shipped_dataset_is_small_and_plausible(shipped: TrajectoryDataset) -> None:
    files = [file for file in SHIPPED_ROOT.rglob("*") if file.is_file()]
    assert sum(file.stat().st_size for file in files) < 3_000_000
    assert shipped.num_steps > 50_000
    assert shipped.max_episode_length == 1000
    score = shipped.normalized_score(shipped.episode_returns)
    assert score is not None
    assert 45 < score.mean() < 65
    assert 0 < shipped.terminated.mean() < 1
    np.testing.assert_array_equal(shipped.terminated, ~shipped.truncated)


def test_paths(small_root: Path, d4rl_file: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = small_root / "test" / "hopper-v3"
    episodes = load_trajectories(folder).num_episodes
    assert load_trajectories(str(folder)).num_episodes == episodes
    assert load_trajectories(folder / "data").num_episodes == episodes
    assert load_trajectories(folder / "data" / "main_data.hdf5").num_episodes == episodes
    assert load_trajectories(d4rl_file.path).num_episodes == d4rl_file.episodes + 1
    monkeypatch.chdir(d4rl_file.path.parent)
    assert load_trajectories(d4rl_file.path.name).num_episodes == d4rl_file.episodes + 1
    monkeypatch.setenv("HOME", str(d4rl_file.path.parent))
    assert load_trajectories(f"~/{d4rl_file.path.name}").num_episodes == d4rl_file.episodes + 1


def test_local_ids(home: Path, small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(small_root, home / ".minari" / "datasets")
    assert load_trajectories("test/hopper-v3").name == "test/hopper-v3"
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(small_root))
    shutil.rmtree(home / ".minari")
    assert load_trajectories("test/hopper-v3").name == "test/hopper-v3"


def test_an_unknown_id_names_its_neighbours(
    home: Path, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(small_root))
    with pytest.raises(UserError) as caught:
        load_trajectories("test/hoper-v3")
    message = str(caught.value)
    assert "\n" not in message
    for fragment in ("'test/hoper-v3'", str(small_root), "test/hopper-v3", "127.0.0.1:9"):
        assert fragment in message
    with pytest.raises(UserError, match=SHIPPED_ID):
        load_trajectories("aaren-rl/hopper-smal-v0")


def test_minari_downloads_what_is_not_here(
    home: Path, small_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Minari's client is played by a copy, for there is no network in tests."""
    monkeypatch.setenv("MINARI_REMOTE", "gcp://elsewhere")
    asked = []

    def client(dataset_id: str) -> None:
        asked.append(dataset_id)
        shutil.copytree(small_root / "test", home / ".minari" / "datasets" / "test")

    monkeypatch.setattr(minari, "download_dataset", client)
    assert load_trajectories("test/hopper-v3").name == "test/hopper-v3"
    assert load_trajectories("test/hopper-v3").num_episodes > 0
    assert asked == ["test/hopper-v3"]


def test_what_minaris_server_says_is_passed_on(home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_REMOTE", "gcp://elsewhere")

    def client(dataset_id: str) -> None:
        raise ValueError(f"Couldn't find any version\nfor {dataset_id}")

    monkeypatch.setattr(minari, "download_dataset", client)
    with pytest.raises(UserError, match="Couldn't find any version for no/such-v0"):
        load_trajectories("no/such-v0")


@pytest.mark.parametrize("source", ["", ".", "nothing", "./nothing.hdf5", "/no/folder", "a b-v0"])
def test_what_is_no_name_at_all(home: Path, source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(home)
    with pytest.raises(UserError, match="a D4RL file, a Minari folder, a Minari id or a D4RL name"):
        load_trajectories(source)


def test_rewards_too_large_for_float32() -> None:
    steps = {"observations": np.zeros((4, 2)), "actions": np.zeros((4, 1))}
    with pytest.raises(UserError, match=r"rewards: so large that returns may reach 4e\+18"):
        TrajectoryDataset.from_episodes([{**steps, "rewards": np.full(4, 1e18)}], name="large")

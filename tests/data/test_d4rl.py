from __future__ import annotations

import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from gymnasium import spaces

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.data.sources.d4rl import is_d4rl_name
from aaren_rl.errors import UserError

ADDRESS = "http://127.0.0.1:9/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5"  # nobody answers


def test_every_step_round_trips(d4rl_file: Any, shipped: TrajectoryDataset) -> None:
    data = load_trajectories(d4rl_file.path)
    steps = int(shipped.offsets[d4rl_file.episodes]) + d4rl_file.unfinished_steps
    assert data.num_steps == steps
    assert data.lengths.tolist() == [
        *shipped.lengths[: d4rl_file.episodes].tolist(),
        d4rl_file.unfinished_steps,
    ]
    np.testing.assert_array_equal(data.observations, shipped.observations[:steps])
    np.testing.assert_array_equal(data.actions, shipped.actions[:steps])
    np.testing.assert_array_equal(data.rewards, shipped.rewards[:steps].astype(np.float32))
    np.testing.assert_array_equal(data.timesteps, shipped.timesteps[:steps])
    whole = slice(0, int(shipped.offsets[d4rl_file.episodes]))
    np.testing.assert_allclose(data.returns_to_go[whole], shipped.returns_to_go[whole], rtol=1e-5)


def test_ends_of_episodes(d4rl_file: Any, shipped: TrajectoryDataset) -> None:
    data = load_trajectories(d4rl_file.path)
    assert data.terminated.tolist() == [*shipped.terminated[: d4rl_file.episodes].tolist(), False]
    assert data.truncated.tolist() == [*shipped.truncated[: d4rl_file.episodes].tolist(), True]
    assert set(shipped.terminated[: d4rl_file.episodes].tolist()) == {True, False}


def test_spaces_scores_and_name(d4rl_file: Any) -> None:
    data = load_trajectories(d4rl_file.path)
    assert data.name == "hopper_medium-v2"
    assert data.observation_space == spaces.Box(-np.inf, np.inf, (11,), np.float32)
    assert data.action_space == spaces.Box(-1, 1, (3,), np.float32)
    assert data.reference_scores == (-20.272305, 3234.3)
    assert data.env_spec is None


def change(path: Path, field: str, function: Callable[[np.ndarray], np.ndarray]) -> None:
    with h5py.File(path, "r+") as file:
        values = function(file[field][()])
        del file[field]
        file[field] = values


@pytest.fixture
def own_file(d4rl_file: Any, tmp_path: Path) -> Path:
    return Path(shutil.copy(d4rl_file.path, tmp_path))


def test_columns_of_rewards_and_ends(own_file: Path) -> None:
    flat = load_trajectories(own_file)
    for field in ("rewards", "terminals", "timeouts"):
        change(own_file, field, lambda values: values[:, None])
    columns = load_trajectories(own_file)
    np.testing.assert_array_equal(columns.rewards, flat.rewards)
    np.testing.assert_array_equal(columns.offsets, flat.offsets)


def test_float64_and_finished_files(own_file: Path, d4rl_file: Any) -> None:
    change(own_file, "observations", lambda values: values.astype(np.float64))
    change(own_file, "timeouts", lambda values: np.append(values[:-1], True))
    data = load_trajectories(own_file)
    assert data.observations.dtype == np.float32
    assert data.num_episodes == d4rl_file.episodes + 1
    assert data.truncated[-1]


def test_integer_actions_are_discrete(own_file: Path) -> None:
    change(own_file, "actions", lambda values: np.arange(len(values)) % 4)
    data = load_trajectories(own_file)
    assert data.action_space == spaces.Discrete(4)
    assert data.actions.dtype == np.int64


def poison(values: np.ndarray) -> np.ndarray:
    values[1100] = np.nan
    return values


BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "missing array": (
        lambda p: delete(p, "actions"),
        ["'actions' missing", "a D4RL file has", "this one has infos"],
    ),
    "lengths": (
        lambda p: change(p, "observations", lambda v: v[:-1]),
        ["rows of observations", "actions"],
    ),
    "rewards": (lambda p: change(p, "rewards", lambda v: v[1:]), ["rows of rewards"]),
    "NaN": (lambda p: change(p, "observations", poison), ["episode 1: observations", "step 100"]),
    "infinity": (
        lambda p: change(p, "rewards", lambda v: np.append(v[:-1], np.inf)),
        ["episode 6: rewards", "step 99"],
    ),
    "two columns of ends": (
        lambda p: change(p, "timeouts", lambda v: np.stack([v, v], axis=1)),
        ["timeouts of shape", "one value a step expected"],
    ),
    "an end that is NaN": (
        lambda p: change(p, "timeouts", lambda v: np.where(v, np.nan, 0)),
        ["timeouts: other values than 0 and 1"],
    ),
    "a link to another file": (
        lambda p: link(p, "timeouts", h5py.ExternalLink("moved.hdf5", "/timeouts")),
        ["timeouts: a link that leads nowhere; an array expected"],
    ),
    "empty": (lambda p: empty(p), ["no episodes"]),
    "cut short": (
        lambda p: p.write_bytes(p.read_bytes()[: p.stat().st_size // 2]),
        ["corrupt or cut short"],
    ),
    "not HDF5": (lambda p: p.write_text("observations"), ["corrupt or cut short"]),
    "zero bytes": (lambda p: p.write_bytes(b""), ["corrupt or cut short"]),
    "broken inside": (lambda p: scribble(p), ["observations: does not read", "corrupt"]),
}


def delete(path: Path, field: str) -> None:
    with h5py.File(path, "r+") as file:
        del file[field]


def link(path: Path, field: str, target: h5py.ExternalLink) -> None:
    with h5py.File(path, "r+") as file:
        del file[field]
        file[field] = target


def empty(path: Path) -> None:
    for field in ("observations", "actions", "rewards", "terminals", "timeouts"):
        change(path, field, lambda values: values[:0])


def scribble(path: Path) -> None:
    """Overwrite a compressed chunk of observations, as a bad disk would."""
    with h5py.File(path, "r") as file:
        chunk = file["observations"].id.get_chunk_info(0)
    content = bytearray(path.read_bytes())
    content[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xff" * chunk.size
    path.write_bytes(content)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_in_one_line(own_file: Path, case: str) -> None:
    break_it, fragments = BROKEN[case]
    break_it(own_file)
    with pytest.raises(UserError) as caught:
        load_trajectories(own_file)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in [str(own_file), *fragments]:
        assert fragment in message


def test_minaris_file_alone_is_told_from_d4rls(tmp_path: Path, small_root: Path) -> None:
    source = small_root / "test" / "hopper-v3" / "data" / "main_data.hdf5"
    with pytest.raises(UserError, match=r"Minari's layout; give the folder"):
        load_trajectories(Path(shutil.copy(source, tmp_path / "copy.hdf5")))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("hopper-medium-v2", True),
        ("halfcheetah-medium-replay-v2", True),
        ("antmaze-umaze-diverse-v0", True),
        ("bullet-ant-medium-v0", True),
        ("mujoco/hopper/medium-v0", False),
        ("hopper-medium", False),
        ("my-dataset-v0", False),
    ],
)
def test_names(name: str, expected: bool) -> None:
    assert is_d4rl_name(name) is expected


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """D4RL's cache folder, not there yet; an empty home and Minari root beside it."""
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path / "minari"))
    monkeypatch.setenv("D4RL_DATASET_DIR", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def without_package(monkeypatch: pytest.MonkeyPatch) -> None:
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "d4rl" else find_spec(name)
    )


@pytest.fixture
def install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], None]:
    """Install a package laid out like d4rl, which fails to import, with one address."""

    def install_with(address: str) -> None:
        package = tmp_path / "site" / "d4rl"
        package.mkdir(parents=True)
        (package / "__init__.py").write_text("raise Exception('You appear to miss MuJoCo')\n")
        (package / "infos.py").write_text(
            f"DATASET_URLS = {{'hopper-medium-v2': {address!r}}}\n"
            "REF_MIN_SCORE = {'hopper-medium-v2': 5.0}\n"
            "REF_MAX_SCORE = {'hopper-medium-v2': 25.0}\n"
        )
        monkeypatch.syspath_prepend(str(package.parent))

    return install_with


@pytest.mark.usefixtures("without_package")
def test_a_file_in_the_cache_needs_no_package(cache: Path, d4rl_file: Any) -> None:
    cache.mkdir()
    shutil.copy(d4rl_file.path, cache / "hopper_medium-v2.hdf5")
    data = load_trajectories("hopper-medium-v2")
    assert data.name == "hopper-medium-v2"
    assert data.num_episodes == d4rl_file.episodes + 1
    assert data.reference_scores == (-20.272305, 3234.3)


@pytest.mark.usefixtures("without_package")
def test_the_default_cache_is_d4rls(
    cache: Path, d4rl_file: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("D4RL_DATASET_DIR")
    folder = cache.parent / "home" / ".d4rl" / "datasets"
    folder.mkdir(parents=True)
    shutil.copy(d4rl_file.path, folder / "walker2d-medium-replay-v2.hdf5")
    assert load_trajectories("walker2d-medium-replay-v2").num_episodes == d4rl_file.episodes + 1


@pytest.mark.usefixtures("without_package")
def test_without_file_and_package_both_ways_are_named(cache: Path) -> None:
    with pytest.raises(UserError) as caught:
        load_trajectories("hopper-medium-replay-v2")
    message = str(caught.value)
    assert str(cache / "hopper_medium_replay-v2.hdf5") in message
    assert "pip install d4rl==1.1" in message
    assert "\n" not in message
    assert not cache.exists()


@pytest.mark.usefixtures("cache", "without_package")
def test_robots_names_are_known_without_the_package() -> None:
    with pytest.raises(UserError, match=r"'hopper-medum-v2'.*near it: hopper-medium-v2"):
        load_trajectories("hopper-medum-v2")


@pytest.mark.usefixtures("without_package")
def test_other_tasks_files_go_by_the_datasets_name(cache: Path) -> None:
    with pytest.raises(UserError, match=str(cache / "antmaze-umaze-v0.hdf5")):
        load_trajectories("antmaze-umaze-v0")


def test_the_package_is_read_and_never_imported(
    cache: Path, d4rl_file: Any, install: Callable[[str], None], serve: Callable[..., Any]
) -> None:
    content = d4rl_file.path.read_bytes()
    server = serve(content, dies_at=[len(content) // 2])
    install(f"{server.address}/offline_rl/gym_mujoco_v2/hopper_medium-v2.hdf5")
    data = load_trajectories("hopper-medium-v2")
    assert "d4rl" not in sys.modules
    assert data.num_episodes == d4rl_file.episodes + 1
    assert data.reference_scores == (5.0, 25.0)
    assert (cache / "hopper_medium-v2.hdf5").read_bytes() == content
    assert load_trajectories("hopper-medium-v2").num_steps == data.num_steps
    assert len(server.ranges) == 2  # half, and the rest: nothing for the second reading


def test_without_network_the_file_and_its_place_are_named(
    cache: Path, install: Callable[[str], None]
) -> None:
    install(ADDRESS)
    with pytest.raises(UserError) as caught:
        load_trajectories("hopper-medium-v2")
    message = str(caught.value)
    assert ADDRESS in message
    assert f"place the file at {cache / 'hopper_medium-v2.hdf5'}" in message
    assert "\n" not in message


@pytest.mark.usefixtures("cache")
def test_a_name_that_the_package_does_not_know(install: Callable[[str], None]) -> None:
    install(ADDRESS)
    with pytest.raises(UserError, match=r"'hopper-medum-v2'.*hopper-medium-v2"):
        load_trajectories("hopper-medum-v2")


def test_ends_at_terminals_where_there_are_no_timeouts(own_file: Path, d4rl_file: Any) -> None:
    whole = load_trajectories(own_file)
    delete(own_file, "timeouts")
    data = load_trajectories(own_file)
    ends = (np.flatnonzero(whole.terminated) + 1).tolist()
    wanted = whole.offsets[[0, *ends, -1]]
    np.testing.assert_array_equal(data.offsets, np.unique(wanted))
    assert data.terminated.tolist() == [True] * len(ends) + [False]
    cut = load_trajectories(own_file, episode_length=250)
    assert cut.max_episode_length == 250
    np.testing.assert_array_equal(cut.terminated.sum(), data.terminated.sum())
    with pytest.raises(UserError, match="episode length 0: at least 1 expected"):
        load_trajectories(own_file, episode_length=0)
    delete(own_file, "terminals")
    assert load_trajectories(own_file).num_episodes == 1


def test_a_file_that_another_process_writes(own_file: Path) -> None:
    """It is not called corrupt."""
    code = (
        "import h5py, sys; file = h5py.File(sys.argv[1], 'r+'); print('open', flush=True); "
        "sys.stdin.read()"
    )
    writer = subprocess.Popen(
        [sys.executable, "-c", code, str(own_file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert writer.stdin is not None
    assert writer.stdout is not None
    try:
        writer.stdout.readline()
        with pytest.raises(UserError, match="in use: another process is writing") as caught:
            load_trajectories(own_file)
        assert "corrupt" not in str(caught.value)
    finally:
        writer.communicate()
    load_trajectories(own_file)


def test_a_file_without_permission(own_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if os.geteuid() == 0:  # root may read everything: h5py's answer is played
        error = PermissionError(13, "Unable to synchronously open file")

        def refuse(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(h5py, "File", refuse)
    own_file.chmod(0)
    with pytest.raises(UserError, match=r"cannot be read \(Permission denied\)"):
        load_trajectories(own_file)

"""Real data there and back: every array as it was, to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from minari.data_collector import EpisodeBuffer
from minari.dataset.minari_storage import MinariStorage

from aaren_rl.convert import ConvertConfig, convert
from aaren_rl.data import load_trajectories
from aaren_rl.data.sources.load import SHIPPED_ROOT

SHIPPED = "aaren-rl/hopper-small-v0"


def d4rl_file(path: Path, *, after: bool = True, broken: bool = False) -> Path:
    """Hopper data in D4RL's layout: ends of both kinds, both at once, an unfinished episode,
    infos, an array of its own, the policy's weights and attributes."""
    data = load_trajectories(SHIPPED)
    steps = int(data.offsets[7]) + 123
    terminals, timeouts = np.zeros(steps, bool), np.zeros(steps, bool)
    ends = data.offsets[1:8] - 1
    terminals[ends], timeouts[ends] = data.terminated[:7], data.truncated[:7]
    timeouts[ends[0]] = terminals[ends[0]] = True
    observations = data.observations[: steps + 1]
    following = observations[1:].copy()
    following[ends] += 0.25  # what comes after an episode is not the next one's beginning
    if broken:
        following[5] += 1  # the file contradicts itself within an episode
    arrays: dict[str, Any] = {
        "observations": observations[:-1],
        "actions": data.actions[:steps],
        "rewards": data.rewards[:steps].astype(np.float32),
        "terminals": terminals,
        "timeouts": timeouts,
        "infos/action_log_probs": np.linspace(-3, 0, steps, dtype=np.float32),
        "infos/qpos": np.pad(observations[:-1, :5], ((0, 0), (1, 0))).astype(np.float64),
        "infos/goal": np.arange(2 * steps).reshape(steps, 2),
        "goal": np.arange(steps, dtype=np.int16),
        "metadata/algorithm": np.bytes_("SAC"),
        "metadata/iteration": np.int64(599),
        "metadata/policy/fc0/bias": np.linspace(0, 1, 256, dtype=np.float32),
    }
    if after:
        arrays["next_observations"] = following
    with h5py.File(path, "w") as file:
        file.attrs["made_by"] = "tests"
        for name, values in arrays.items():
            file.create_dataset(name, data=values, compression="gzip" if np.ndim(values) else None)
    return path


def content(path: Path) -> dict[str, Any]:
    """All arrays of an HDF5 file and the attributes of its groups."""
    found: dict[str, Any] = {}
    with h5py.File(path) as file:
        found["attributes of /"] = dict(file.attrs)

        def keep(name: str, node: Any) -> None:
            if isinstance(node, h5py.Dataset):
                found[name] = node[()]
            elif node.attrs:
                found[f"attributes of {name}"] = {k: str(v) for k, v in node.attrs.items()}

        file.visititems(keep)
    return found


def assert_same_file(one: Path, other: Path) -> None:
    ours, theirs = content(one), content(other)
    assert ours.keys() == theirs.keys()
    for name, values in ours.items():
        if name.startswith("attributes"):
            assert values == theirs[name], name
            continue
        assert np.asarray(values).dtype == np.asarray(theirs[name]).dtype, name
        np.testing.assert_array_equal(values, theirs[name], err_msg=name)


@pytest.mark.parametrize("packing", ["none", "gzip"])
@pytest.mark.parametrize("broken", [False, True])
@pytest.mark.parametrize("after", [True, False])
def test_d4rl_to_minari_and_back(tmp_path: Path, after: bool, broken: bool, packing: Any) -> None:
    source = d4rl_file(tmp_path / "hopper_medium-v2.hdf5", after=after, broken=broken)
    folder = convert(
        ConvertConfig(str(source), "d4rl/hopper/medium-v2", tmp_path, compression=packing)
    )
    back = convert(ConvertConfig(str(folder), str(tmp_path / "back.hdf5"), compression=packing))
    assert_same_file(back, source)


def test_what_minari_sees_of_a_d4rl_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = d4rl_file(tmp_path / "hopper_medium-v2.hdf5")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    convert(ConvertConfig(str(source), "d4rl/hopper/medium-v2", environment="Hopper-v5"))
    theirs = minari.load_dataset("d4rl/hopper/medium-v2")
    wanted = load_trajectories(source, keep_unfinished_episode=True)
    arrays = content(source)
    assert (theirs.total_episodes, theirs.total_steps) == (8, wanted.num_steps)
    assert theirs.env_spec.id == "Hopper-v5"
    assert list(minari.list_local_datasets()) == ["d4rl/hopper/medium-v2"]
    for index, episode in enumerate(theirs):
        rows = slice(wanted.offsets[index], wanted.offsets[index + 1])
        np.testing.assert_array_equal(episode.observations[:-1], arrays["observations"][rows])
        last = arrays["next_observations"][rows][-1]
        np.testing.assert_array_equal(episode.observations[-1], last)
        np.testing.assert_array_equal(episode.actions, arrays["actions"][rows])
        np.testing.assert_array_equal(episode.rewards, arrays["rewards"][rows])
        np.testing.assert_array_equal(episode.infos["qpos"], arrays["infos/qpos"][rows])
        assert episode.terminations[-1] == wanted.terminated[index]
        assert episode.truncations[-1] == wanted.truncated[index]
        assert not (episode.terminations[:-1] | episode.truncations[:-1]).any()
    for keep, episodes in ((True, 8), (False, 7)):  # the unfinished one
        ours = load_trajectories("d4rl/hopper/medium-v2", keep_unfinished_episode=keep)
        wanted = load_trajectories(source, keep_unfinished_episode=keep)
        assert ours.num_episodes == episodes
        for field in ("observations", "actions", "rewards", "returns_to_go", "offsets"):
            np.testing.assert_array_equal(getattr(ours, field), getattr(wanted, field))
        np.testing.assert_array_equal(ours.truncated, wanted.truncated)
        assert ours.reference_scores == wanted.reference_scores


def with_infos(root: Path) -> Path:
    """A dataset written by Minari itself, infos after the reset included, seeds and all."""
    env = gymnasium.make("Hopper-v5")
    buffers = []
    for index, length in enumerate((40, 7, 23)):
        observation, first = env.reset(seed=index)
        env.action_space.seed(index)
        seen, taken, earned = [observation], [], []
        infos = {key: [value] for key, value in first.items()}
        for _ in range(length):
            taken.append(env.action_space.sample())
            observation, reward, _, _, info = env.step(taken[-1])
            seen.append(observation)
            earned.append(float(reward))
            for key, values in infos.items():
                values.append(info[key])
        ends = np.zeros((2, length), bool)
        ends[index % 2, -1] = True
        buffers.append(
            EpisodeBuffer(
                id=index,
                seed=index,
                observations=np.stack(seen),
                actions=np.stack(taken),
                rewards=earned,
                terminations=ends[0].tolist(),
                truncations=ends[1].tolist(),
                infos={key: np.array(values) for key, values in infos.items()},
            )
        )
    assert infos
    folder = root / "tests/written/by-minari-v3"
    folder.mkdir(parents=True)
    storage = MinariStorage.new(
        folder / "data", env.observation_space, env.action_space, env_spec=env.spec
    )
    storage.update_metadata(
        {
            "dataset_id": "tests/written/by-minari-v3",
            "minari_version": minari.__version__,
            "author": {"one", "two"},
            "description": "real steps",
            "ref_min_score": 1.5,
            "ref_max_score": 2.5,
        }
    )
    storage.update_episodes(buffers)
    return folder


@pytest.mark.parametrize("shipped", [True, False])
def test_minari_to_d4rl_and_back(tmp_path: Path, shipped: bool) -> None:
    source = SHIPPED_ROOT / SHIPPED if shipped else with_infos(tmp_path)
    file = convert(ConvertConfig(str(source), str(tmp_path / "there.hdf5")))
    folder = convert(ConvertConfig(str(file), "tests/back-v0", tmp_path / "again"))
    data = "data/main_data.hdf5"
    assert_same_file(folder / data, source / data)
    before, after = (
        json.loads((place / "data/metadata.json").read_text()) for place in (source, folder)
    )
    changed = {"dataset_id", "dataset_size", "minari_version"}
    assert {k for k in before if before[k] != after[k]} <= changed | {"author"}
    assert sorted(before["author"]) == sorted(after["author"])
    assert after.keys() - before.keys() == {"d4rl"}
    both = load_trajectories(source), load_trajectories(file)
    for field in ("observations", "actions", "rewards", "offsets", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(both[0], field), getattr(both[1], field))


def test_discrete_actions(tmp_path: Path) -> None:
    from aaren_rl.data.to_minari import write_minari
    from aaren_rl.envs.memory.experts import record_expert

    record = record_expert("aaren/PassiveTMaze-v0?length=[3,9]", 12)
    assert isinstance(record.action_space, spaces.Discrete)
    source = write_minari(
        "test/maze-v0",
        record.episodes,
        observation_space=record.observation_space,
        action_space=record.action_space,
        env_spec=record.environment,
        root=tmp_path,
    )
    file = convert(ConvertConfig(str(source), str(tmp_path / "maze.hdf5")))
    folder = convert(ConvertConfig(str(file), "test/again-v0", tmp_path))
    assert_same_file(folder / "data/main_data.hdf5", source / "data/main_data.hdf5")
    ours, theirs = load_trajectories(folder), load_trajectories(source)
    assert (ours.env_spec, ours.action_space) == (theirs.env_spec, theirs.action_space)

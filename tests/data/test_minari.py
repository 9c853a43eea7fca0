from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import gymnasium
import h5py
import minari
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.wrappers import TimeAwareObservation
from minari.data_collector.episode_buffer import EpisodeBuffer
from minari.serialization import serialize_space

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.errors import UserError
from aaren_rl.layout import Layout

NAME = "test/hopper-v3"


@pytest.fixture
def folder(small_root: Path, tmp_path: Path) -> Path:
    """A dataset folder of one's own, to break."""
    return Path(shutil.copytree(small_root / NAME, tmp_path / "hopper-v3"))


def test_reads_what_minari_reads(small_root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(small_root))
    theirs = minari.load_dataset(NAME)
    ours = load_trajectories(small_root / NAME)
    assert ours.name == NAME
    assert ours.num_episodes == theirs.total_episodes >= 3
    assert ours.num_steps == theirs.total_steps
    assert ours.env_spec == gymnasium.spec("Hopper-v5")
    assert ours.observation_space == theirs.observation_space
    assert ours.action_space == theirs.action_space
    for index, episode in enumerate(theirs):
        part = ours.episode(index)
        np.testing.assert_array_equal(part.observations, episode.observations[:-1])
        np.testing.assert_array_equal(part.actions, episode.actions)
        np.testing.assert_array_equal(part.rewards, episode.rewards)
        assert part.terminated == episode.terminations[-1]
        assert part.truncated == episode.truncations[-1]


def test_actions_follow_their_observations(shipped: TrajectoryDataset) -> None:
    """The T + 1 rows must not shift later episodes: Hopper's reward can be worked out again.

    Hopper-v5 pays 1 for being healthy, less 0.001 |a|^2, plus the forward speed; the observed
    forward speed is the one at the step's beginning, close to the mean that is paid.
    """
    costs = 0.001 * (shipped.actions.astype(np.float64) ** 2).sum(axis=1)
    speed = shipped.rewards - 1 + costs
    for index in (0, 40, 78):
        rows = slice(int(shipped.offsets[index]) + 1, int(shipped.offsets[index + 1]) - 1)
        aligned = np.corrcoef(shipped.observations[rows, 5], speed[rows])[0, 1]
        shifted = np.corrcoef(shipped.observations[rows, 5], np.roll(speed, 3)[rows])[0, 1]
        assert aligned > 0.95
        assert aligned > shifted


def test_reference_scores_by_name_where_minari_has_none(folder: Path) -> None:
    assert load_trajectories(folder).reference_scores == (-20.272305, 3234.3)
    edit_metadata(folder, ref_min_score=1.0, ref_max_score=2.0)
    assert load_trajectories(folder).reference_scores == (1.0, 2.0)


def test_an_environment_for_evaluation_comes_first(folder: Path) -> None:
    assert load_trajectories(folder).env_spec.id == "Hopper-v5"
    edit_metadata(folder, eval_env_spec=gymnasium.spec("Hopper-v4").to_json())
    assert load_trajectories(folder).env_spec.id == "Hopper-v4"


def test_a_recording_cut_short_is_truncated(folder: Path) -> None:
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        for field in ("terminations", "truncations"):
            file["episode_1"][field][-1] = False
    data = load_trajectories(folder)
    assert not data.terminated[1]
    assert data.truncated[1]


def test_an_episode_that_goes_on_after_a_flag_is_taken_whole(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    whole = load_trajectories(folder).lengths
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file["episode_1"]["terminations"][3] = True
    assert not caplog.messages
    assert (load_trajectories(folder).lengths == whole).all()
    [said] = caplog.messages
    assert "main_data.hdf5: terminations before the last step of an episode" in said


def make_dataset(
    env: gymnasium.Env, name: str, root: Path, monkeypatch: pytest.MonkeyPatch, **options: object
) -> list[EpisodeBuffer]:
    """Let Minari store three random episodes of an environment; gives them as recorded."""
    env.action_space.seed(0)
    buffers = []
    for seed in range(3):
        observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
        terminated = truncated = False
        while not (terminated or truncated):
            actions.append(env.action_space.sample())
            observation, reward, terminated, truncated, _ = env.step(actions[-1])
            observations.append(observation)
            rewards.append(float(reward))
        ends = np.zeros((2, len(rewards)), bool)
        ends[:, -1] = terminated, truncated
        buffers.append(
            EpisodeBuffer(
                observations=stacked(env.observation_space, observations),
                actions=np.array(actions),
                rewards=rewards,
                terminations=ends[0],
                truncations=ends[1],
            )
        )
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    minari.create_dataset_from_buffers(
        name,
        buffers,
        observation_space=env.observation_space,
        action_space=env.action_space,
        **options,
    )
    return buffers


def stacked(space: spaces.Space, rows: list) -> object:
    """Observations as Minari takes them: arrays inside dictionaries and tuples."""
    if isinstance(space, spaces.Dict):
        return {key: stacked(part, [row[key] for row in rows]) for key, part in space.items()}
    if isinstance(space, spaces.Tuple):
        return tuple(stacked(part, [row[i] for row in rows]) for i, part in enumerate(space))
    return np.array(rows)


ENVIRONMENTS: dict[str, tuple[Callable[[], gymnasium.Env], int]] = {
    "box": (lambda: gymnasium.make("CartPole-v1"), 4),
    "discrete": (lambda: gymnasium.make("CliffWalking-v1", max_episode_steps=40), 1),
    "tuple": (lambda: gymnasium.make("Blackjack-v1"), 3),
    "dict": (
        lambda: TimeAwareObservation(gymnasium.make("CartPole-v1"), flatten=False),
        4 + 1,
    ),
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("storage", ["hdf5", "arrow", "parquet"])
@pytest.mark.parametrize("kind", ENVIRONMENTS)
def test_spaces_and_formats(
    kind: str, storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if storage != "hdf5":
        pytest.importorskip("pyarrow", reason="Minari's Arrow formats need pyarrow")
    make, size = ENVIRONMENTS[kind]
    env = make()
    buffers = make_dataset(env, f"test/{kind}-v0", tmp_path, monkeypatch, data_format=storage)
    data = load_trajectories(tmp_path / "test" / f"{kind}-v0")
    assert data.observations.shape[1] == size
    assert data.actions.dtype == np.int64
    assert data.lengths.tolist() == [len(buffer.rewards) for buffer in buffers]
    for index, buffer in enumerate(buffers):
        part = data.episode(index)
        flat = Layout.of(env.observation_space).flatten(buffer.observations)
        np.testing.assert_array_equal(part.observations, flat[:-1])
        np.testing.assert_array_equal(part.actions, buffer.actions)
        np.testing.assert_array_equal(part.rewards, buffer.rewards)


@pytest.mark.filterwarnings("ignore")
def test_images_come_through_minaris_own_decoder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(tmp_path))
    images = np.zeros((3, 32, 32, 3), np.uint8)
    images[1] = 200
    buffer = EpisodeBuffer(
        observations=images,
        actions=np.zeros((2, 1), np.float32),
        rewards=[0.0, 1.0],
        terminations=np.array([False, True]),
        truncations=np.zeros(2, bool),
    )
    minari.create_dataset_from_buffers(
        "test/images-v0",
        [buffer],
        observation_space=spaces.Box(0, 255, (32, 32, 3), np.uint8),
        action_space=spaces.Box(-1, 1, (1,)),
    )
    data = load_trajectories(tmp_path / "test" / "images-v0")
    assert data.observations.shape == (2, 32 * 32 * 3)
    np.testing.assert_allclose(data.observations.mean(axis=1), [0, 200], atol=2)


def edit_metadata(folder: Path, **changes: object) -> None:
    path = folder / "data" / "metadata.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def replace(folder: Path, episode: int, field: str, change: Callable) -> None:
    """Put `change(values)` in the place of one field of one episode."""
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        group = file[f"episode_{episode}"]
        values = change(group[field][()])
        del group[field]
        group[field] = values


def poison(values: np.ndarray, value: float) -> np.ndarray:
    values[5] = value
    return values


def empty_episode(folder: Path) -> None:
    replace(folder, 1, "observations", lambda values: values[:1])
    for field in ("actions", "rewards", "terminations", "truncations"):
        replace(folder, 1, field, lambda values: values[:0])


def cut_file(folder: Path) -> None:
    path = folder / "data" / "main_data.hdf5"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def drop(folder: Path, name: str) -> None:
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        del file[name]


TEXT = serialize_space(spaces.Text(5))
BROKEN: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "no metadata": (
        lambda f: (f / "data" / "metadata.json").unlink(),
        ["metadata.json", "no such file"],
    ),
    "metadata not JSON": (
        lambda f: (f / "data" / "metadata.json").write_text("{"),
        ["metadata.json", "JSON expected"],
    ),
    "metadata too deep": (
        lambda f: (f / "data" / "metadata.json").write_text(100_000 * "["),
        ["metadata.json", "JSON expected"],
    ),
    "metadata a list": (
        lambda f: (f / "data" / "metadata.json").write_text("[]"),
        ["metadata.json", "'dataset_id' missing"],
    ),
    "metadata without a key": (
        lambda f: (f / "data" / "metadata.json").write_text('{"dataset_id": "a/b-v0"}'),
        ["metadata.json", "'data_format' missing"],
    ),
    "broken space": (
        lambda f: edit_metadata(f, observation_space="Box"),
        ["metadata.json", "Minari cannot read it"],
    ),
    "neither spaces nor an environment": (
        lambda f: edit_metadata(f, action_space=None, env_spec=None),
        ["metadata.json", "action_space expected, or an env_spec"],
    ),
    "episodes not a number": (
        lambda f: edit_metadata(f, total_episodes="many"),
        ["metadata.json", "Minari cannot read it"],
    ),
    "half an episode": (
        lambda f: edit_metadata(f, total_episodes=2.5),
        ["metadata.json", "total_episodes: a whole number expected, got 2.5"],
    ),
    "a version that is no text": (
        lambda f: edit_metadata(f, minari_version=0.5),
        ["metadata.json: minari_version: text expected, got 0.5"],
    ),
    "an id that is no text": (
        lambda f: edit_metadata(f, dataset_id=None),
        ["metadata.json: dataset_id: text expected, got None"],
    ),
    "an environment without its wrappers": (
        lambda f: edit_metadata(f, env_spec='{"id": "Hopper-v5"}'),
        ["metadata.json: env_spec: the JSON text of a Gymnasium EnvSpec", "additional_wrappers"],
    ),
    "an environment that is no text": (
        lambda f: edit_metadata(f, env_spec={"id": "Hopper-v5"}),
        ["metadata.json: env_spec: the JSON text of a Gymnasium EnvSpec"],
    ),
    "actions that are text": (
        lambda f: edit_metadata(f, action_space=TEXT),
        ["data: actions: space Text(", "(read as a Minari dataset)"],
    ),
    "observations that are text": (
        lambda f: edit_metadata(f, observation_space=TEXT),
        ["data: observations: space Text(", "(read as a Minari dataset)"],
    ),
    "future Minari": (
        lambda f: edit_metadata(f, minari_version="9.0"),
        ["metadata.json", "9.0"],
    ),
    "unknown format": (
        lambda f: edit_metadata(f, data_format="cuneiform"),
        ["metadata.json: Minari cannot read it: data_format: 'cuneiform'"],
    ),
    "no data": (
        lambda f: (f / "data" / "main_data.hdf5").unlink(),
        ["main_data.hdf5", "no such file"],
    ),
    "cut short": (cut_file, ["main_data.hdf5", "corrupt or cut short"]),
    "not HDF5": (
        lambda f: (f / "data" / "main_data.hdf5").write_bytes(b"nothing" * 99),
        ["main_data.hdf5", "corrupt or cut short"],
    ),
    "empty": (lambda f: edit_metadata(f, total_episodes=0), ["main_data.hdf5", "no episodes"]),
    "missing episode": (
        lambda f: drop(f, "episode_2"),
        ["main_data.hdf5", "episode 2", "no group"],
    ),
    "missing field": (
        lambda f: drop(f, "episode_1/rewards"),
        ["main_data.hdf5", "episode 1", "'rewards' missing"],
    ),
    "empty episode": (empty_episode, ["main_data.hdf5", "episode 1", "no steps"]),
    "T observations": (
        lambda f: replace(f, 1, "observations", lambda v: v[:-1]),
        ["main_data.hdf5", "episode 1", "observations", "actions", "Minari stores"],
    ),
    "a flag of 2": (
        lambda f: replace(f, 2, "terminations", lambda v: 2 * v.astype(int)),
        ["main_data.hdf5", "episode 2: terminations: other values than 0 and 1"],
    ),
    "rewards too few": (
        lambda f: replace(f, 2, "rewards", lambda v: v[:-1]),
        ["main_data.hdf5", "episode 2", "rewards"],
    ),
    "flags too few": (
        lambda f: replace(f, 2, "truncations", lambda v: v[:-1]),
        ["main_data.hdf5", "episode 2", "truncations"],
    ),
    "observation size": (
        lambda f: replace(f, 0, "observations", lambda v: v[:, :-1]),
        ["main_data.hdf5", "episode 0", "observations", "[11] expected"],
    ),
    "NaN observation": (
        lambda f: replace(f, 1, "observations", lambda v: poison(v, np.nan)),
        ["main_data.hdf5", "episode 1", "observations", "step 5"],
    ),
    "infinite reward": (
        lambda f: replace(f, 2, "rewards", lambda v: poison(v, np.inf)),
        ["main_data.hdf5", "episode 2", "rewards", "step 5"],
    ),
    "NaN action": (
        lambda f: replace(f, 0, "actions", lambda v: poison(v, np.nan)),
        ["main_data.hdf5", "episode 0", "actions", "step 5"],
    ),
    "scalar actions": (
        lambda f: replace(f, 0, "actions", lambda v: np.float32(0)),
        ["main_data.hdf5", "episode 0", "actions"],
    ),
    "words for actions": (
        lambda f: replace(f, 0, "actions", lambda v: np.full(v.shape, b"left")),
        ["main_data.hdf5", "episode 0", "actions", "numbers expected"],
    ),
    "a group for an array": (
        lambda f: replace_with_group(f, "episode_1/rewards"),
        ["main_data.hdf5", "episode 1", "rewards is a group"],
    ),
}


def replace_with_group(folder: Path, name: str) -> None:
    drop(folder, name)
    with h5py.File(folder / "data" / "main_data.hdf5", "r+") as file:
        file.create_group(name)


@pytest.mark.parametrize("case", BROKEN)
def test_what_is_broken_is_named_in_one_line(folder: Path, case: str) -> None:
    break_it, fragments = BROKEN[case]
    break_it(folder)
    with pytest.raises(UserError) as caught:
        load_trajectories(folder)
    message = str(caught.value)
    assert "\n" not in message
    for fragment in [str(folder), *fragments]:
        assert fragment in message


def test_fewer_episodes_than_are_there(folder: Path, caplog: pytest.LogCaptureFixture) -> None:
    there = load_trajectories(folder).num_episodes
    assert "total_episodes" not in caplog.text
    edit_metadata(folder, total_episodes=there - 1)
    assert load_trajectories(folder).num_episodes == there - 1
    said = f"{there} episodes, and total_episodes in metadata.json is {there - 1}: only as many"
    assert said in caplog.text


def test_dictionary_space_over_plain_arrays_is_named(folder: Path) -> None:
    space = {"type": "Dict", "subspaces": {"a": {"type": "Discrete", "n": 2, "start": 0}}}
    edit_metadata(folder, observation_space=json.dumps(space))
    with pytest.raises(UserError, match=r"episode 0: /episode_0/observations is an array"):
        load_trajectories(folder)

"""Arrays, lists of episodes and files of one's own, and the spaces that are found for them."""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from gymnasium.envs.registration import WrapperSpec

from aaren_rl.data import Recording, Trajectory, TrajectoryDataset, load_dataset, register_source
from aaren_rl.data.sources.load import open_recording
from aaren_rl.data.sources.registry import SOURCES
from aaren_rl.errors import UserError

RNG = np.random.default_rng(0)
OBSERVATIONS = RNG.normal(size=(7, 3)).astype(np.float32)
ACTIONS = RNG.uniform(-1, 1, (7, 2)).astype(np.float32)
REWARDS = np.arange(7.0)
ENDS = [False, False, True, False, False, False, True]
LATER = [False, False, False, False, True, False, False]


@pytest.fixture(autouse=True)
def _every_warning(caplog: pytest.LogCaptureFixture) -> None:
    """Warnings are logged once in a process: forget those of other tests."""
    from aaren_rl.data.episode import _log_once

    _log_once.cache_clear()
    caplog.set_level(logging.WARNING, "aaren_rl.data")


def test_flat_arrays() -> None:
    data = TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, REWARDS, ENDS, LATER)
    assert data.lengths.tolist() == [3, 2, 2]
    assert data.terminated.tolist() == [True, False, True]
    assert data.truncated.tolist() == [False, True, False]
    assert data.returns_to_go.tolist() == [3, 3, 2, 7, 4, 11, 6]
    np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    assert data.observation_space == spaces.Box(-np.inf, np.inf, (3,), np.float32)
    assert data.action_space == spaces.Box(-1, 1, (2,), np.float32)
    assert (data.name, data.env_spec, data.reference_scores) == ("data", None, None)


def test_episodes_of_every_form() -> None:
    """Gymnasium's names, D4RL's and single flags; T or T + 1 observations; lists and arrays."""
    episodes: list[Any] = [
        {
            "observations": OBSERVATIONS[:4],
            "actions": ACTIONS[:3],
            "rewards": REWARDS[:3],
            "terminations": [False, False, True],
            "truncations": [False] * 3,
        },
        {
            "observations": OBSERVATIONS[3:5].tolist(),
            "actions": ACTIONS[3:5].tolist(),
            "rewards": [3, 4],
            "terminals": [0, 0],
            "timeouts": [0, 1],
        },
        Trajectory(OBSERVATIONS[5:], ACTIONS[5:], REWARDS[5:], terminated=True, truncated=False),
    ]
    data = TrajectoryDataset.from_episodes(episodes)
    same = TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, REWARDS, ENDS, LATER)
    for field in ("observations", "actions", "rewards", "offsets", "terminated", "truncated"):
        np.testing.assert_array_equal(getattr(data, field), getattr(same, field))
    no_flag = {"observations": [[1.0]], "actions": [0], "rewards": [1.0]}
    assert TrajectoryDataset.from_episodes([no_flag]).truncated.tolist() == [True]


def test_tensors() -> None:
    """Also those that need gradients, and bfloat16, which NumPy does not know."""
    seen: Any = torch.tensor(OBSERVATIONS, requires_grad=True)
    acted: Any = torch.tensor(ACTIONS, dtype=torch.bfloat16)
    data = TrajectoryDataset.from_arrays(seen, acted, torch.tensor(REWARDS), ENDS)
    np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    np.testing.assert_array_equal(data.actions, acted.float())
    one = Trajectory(seen[:3], acted[:3], REWARDS[:3], True, False)
    assert TrajectoryDataset.from_episodes([one]).num_steps == 3


def test_masked_values_are_refused() -> None:
    """NumPy's arrays hold numbers behind the mask, which are not meant."""
    masked = np.ma.masked_greater(REWARDS, REWARDS.min())
    with pytest.raises(UserError, match="data: rewards: masked values; numbers expected"):
        TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, masked, ENDS)
    whole = np.ma.masked_array(REWARDS)
    assert TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, whole, ENDS).num_steps


def test_choices() -> None:
    for values in (np.array([0, 2, 1, 0, 1, 0, 3]), np.array([[0], [2], [1], [0], [1], [0], [3]])):
        data = TrajectoryDataset.from_arrays(OBSERVATIONS, values, REWARDS, ENDS)
        assert data.action_space == spaces.Discrete(4)
        assert data.actions.tolist() == [0, 2, 1, 0, 1, 0, 3]
    flags = np.array(ENDS)
    assert TrajectoryDataset.from_arrays(
        OBSERVATIONS, flags, REWARDS, ENDS
    ).action_space == spaces.Discrete(2)
    with pytest.raises(UserError, match="episode 0: actions: integers from 0 expected"):
        TrajectoryDataset.from_arrays(OBSERVATIONS, values - 1, REWARDS, ENDS)


def test_more_choices_than_are_taken_from_data() -> None:
    """Numbers as large are hardly choices, and no agent would fit into memory."""
    values = np.array([0, 2**40, 1, 0, 1, 0, 3])
    with pytest.raises(UserError, match=r"actions: the largest is 1099511627776, .* --env\)"):
        TrajectoryDataset.from_arrays(OBSERVATIONS, values, REWARDS, ENDS)
    told = spaces.Discrete(2**40 + 1)
    data = TrajectoryDataset.from_arrays(OBSERVATIONS, values, REWARDS, ENDS, action_space=told)
    assert data.action_space == told
    values[1] = 999_999
    data = TrajectoryDataset.from_arrays(OBSERVATIONS, values, REWARDS, ENDS)
    assert data.action_space == spaces.Discrete(1_000_000)


def test_the_environment_knows_an_action_that_the_data_never_take(
    caplog: pytest.LogCaptureFixture,
) -> None:
    choices = np.zeros(7, int)
    for env in (
        "CartPole-v1",
        gymnasium.spec("CartPole-v1"),
        lambda: gymnasium.make("CartPole-v1"),
    ):
        data = TrajectoryDataset.from_arrays(
            np.zeros((7, 4)), choices, REWARDS, ENDS, env=env, name="poles"
        )
        assert data.action_space == spaces.Discrete(2)
        assert data.observation_space == gymnasium.make("CartPole-v1").observation_space
        assert data.env_spec is not None
        assert data.env_spec.id == "CartPole-v1"
    assert not caplog.records
    vector = gymnasium.make_vec("CartPole-v1", num_envs=2)
    data = TrajectoryDataset.from_arrays(np.zeros((7, 4)), choices, REWARDS, ENDS, env=vector)
    assert data.action_space == spaces.Discrete(2)
    with pytest.raises(UserError, match=r"poles: episode 0: observations: the environment's .* 4"):
        TrajectoryDataset.from_arrays(
            OBSERVATIONS, choices, REWARDS, ENDS, env="CartPole-v1", name="poles"
        )
    with pytest.raises(UserError, match="actions: the environment takes Discrete"):
        TrajectoryDataset.from_arrays(
            np.zeros((7, 4)), ACTIONS, REWARDS, ENDS, env="CartPole-v1", name="poles"
        )
    with pytest.raises(UserError, match=r"environment 'No-v1': .* doesn't exist"):
        TrajectoryDataset.from_arrays(OBSERVATIONS, choices, REWARDS, ENDS, env="No-v1")


class Plain(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(-9, 9, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (2,), np.float32)


class Table(gymnasium.Env[Any, Any]):
    observation_space = spaces.Box(-np.inf, np.inf, (2, 3), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)


@pytest.mark.parametrize("shape", [(7,), (7, 1)])
def test_whole_numbers_of_an_environment_with_one_number(shape: tuple[int, ...]) -> None:
    """They are no choices where the environment takes a Box."""
    values = np.array([-1, 0, 1, 1, 0, -1, 0]).reshape(shape)
    for space in (spaces.Box(-1, 1, (1,)), spaces.Box(-3, 9, (1,), np.int64)):
        env = SimpleNamespace(observation_space=Plain.observation_space, action_space=space)
        data = TrajectoryDataset.from_arrays(OBSERVATIONS, values, REWARDS, ENDS, env=env)
        assert data.action_space == space
        assert data.actions.tolist() == values.reshape(7, 1).tolist()


def test_flat_rows_of_a_two_dimensional_environment() -> None:
    rows = RNG.normal(size=(7, 6)).astype(np.float32)
    data = TrajectoryDataset.from_arrays(rows, ACTIONS[:, 0], REWARDS, ENDS, env=Table())
    np.testing.assert_array_equal(data.observations, rows)
    assert data.observation_space == Table.observation_space
    assert data.actions.shape == (7, 1)


def test_bounds_found_in_the_data(caplog: pytest.LogCaptureFixture) -> None:
    """-1 to 1, or where a column goes beyond that, its largest magnitude."""
    wide = ACTIONS.copy()
    wide[4, 1] = -14
    data = TrajectoryDataset.from_arrays(OBSERVATIONS, wide, REWARDS, ENDS)
    assert data.action_space == spaces.Box(
        np.array([-1, -14], np.float32), np.array([1, 14], np.float32)
    )
    np.testing.assert_array_equal(data.actions, wide)
    assert "actions reach 14; the bounds are taken from the data" in caplog.text
    whole = np.array([[0, 3]] * 7)
    data = TrajectoryDataset.from_arrays(OBSERVATIONS, whole, REWARDS, ENDS)
    assert data.action_space == spaces.Box(np.array([0, 0]), np.array([1, 3]), dtype=np.int64)


GUESSED: dict[str, tuple[Any, str]] = {
    "choices": ([0, 1, 0, 1, 0, 1, 0], "Discrete(2)"),
    "within 1": (ACTIONS, "Box(-1.0, 1.0, (2,), float32)"),
    "whole numbers": ([[0, 3]] * 7, "Box(0, [1 3], (2,), int64)"),
}


@pytest.mark.parametrize("case", GUESSED)
def test_a_space_from_the_data_is_said_once(case: str, caplog: pytest.LogCaptureFixture) -> None:
    """And none that the environment or the user says."""
    actions, space = GUESSED[case]
    for _ in range(2):
        data = TrajectoryDataset.from_arrays(OBSERVATIONS, np.array(actions), REWARDS, ENDS)
    assert caplog.messages == [f"data: no action space is known: {space} is taken from the data"]
    caplog.clear()
    env = SimpleNamespace(observation_space=data.observation_space, action_space=data.action_space)
    for told in ({"env": env}, {"action_space": data.action_space}):
        TrajectoryDataset.from_arrays(
            OBSERVATIONS, np.array(actions), REWARDS, ENDS, name="known", **told
        )
    assert not caplog.messages


def test_warnings_are_said_again_of_a_copy_on_the_disk(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """In another process too, which finds the copy and does not read the file."""
    from aaren_rl.data.episode import _log_once

    file = tmp_path / "own.npz"
    np.savez(file, observations=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, terminals=ENDS)
    load_dataset(file)
    in_memory = list(caplog.messages)
    assert any("no action space is known" in message for message in in_memory)
    for _ in range(2):
        _log_once.cache_clear()  # as in a new process
        caplog.clear()
        load_dataset(file, on="disk", cache=tmp_path / "cache")
        assert caplog.messages == in_memory


def test_whole_observations_of_no_known_space_are_said(caplog: pytest.LogCaptureFixture) -> None:
    """They may be numbers or choices."""
    cells = np.arange(7, dtype=np.int16)[:, None]
    TrajectoryDataset.from_arrays(cells, ACTIONS, REWARDS, ENDS, env=None)
    guess = "Box(-32768, 32767, (1,), int16) is taken from the data"
    assert f"data: no observation space is known: {guess}" in caplog.messages
    caplog.clear()
    TrajectoryDataset.from_arrays(
        cells, ACTIONS, REWARDS, ENDS, name="known", observation_space=spaces.Box(0, 9, (1,), "i2")
    )
    assert not any("observation space" in message for message in caplog.messages)


def test_declared_bounds_that_the_data_go_beyond(caplog: pytest.LogCaptureFixture) -> None:
    """No environment says which is right: both fit in."""
    declared = spaces.Box(-0.5, 2, (2,), np.float32)
    data = TrajectoryDataset.from_arrays(
        OBSERVATIONS, ACTIONS, REWARDS, ENDS, action_space=declared
    )
    space = data.action_space
    assert isinstance(space, spaces.Box)
    np.testing.assert_array_equal(space.low, np.minimum(ACTIONS.min(axis=0), -0.5))
    np.testing.assert_array_equal(space.high, [2, 2])
    assert "beyond the declared bounds" in caplog.text


@pytest.mark.parametrize("how", ["env", "env_spec"])
def test_bounds_of_the_environment_hold(how: str, caplog: pytest.LogCaptureFixture) -> None:
    """As in the environment itself, which clips; the data's rounding is no offence."""
    actions = np.array([[3.0], [-2.00001], [1.0]])
    episode = Trajectory(OBSERVATIONS[:3], actions, REWARDS[:3], True, False)
    told: dict[str, Any] = {
        "env": {"env": "Pendulum-v1"},
        "env_spec": {
            "env_spec": gymnasium.spec("Pendulum-v1"),
            "action_space": spaces.Box(-2, 2, (1,), np.float32),
        },
    }[how]
    data = TrajectoryDataset.from_episodes([episode], **told)
    assert data.actions.tolist() == [[2], [-2], [1]]
    assert data.action_space == spaces.Box(-2, 2, (1,), np.float32)
    [record] = caplog.records
    assert "actions of 1 steps lie beyond the environment's bounds" in record.getMessage()


@pytest.mark.parametrize(
    "env", ["Pendulum-v1?max_episode_steps=50", gymnasium.spec("Pendulum-v1").to_json()]
)
def test_an_environment_by_text(env: str) -> None:
    actions = np.array([[2.0], [-1.5], [0.5]])
    episode = Trajectory(OBSERVATIONS[:3], actions, REWARDS[:3], True, False)
    data = TrajectoryDataset.from_episodes([episode], env=env)
    assert data.action_space == spaces.Box(-2, 2, (1,), np.float32)
    assert data.env_spec is not None
    assert data.env_spec.max_episode_steps == (50 if "?" in env else 200)


@pytest.mark.parametrize("name", ["done", "dones", "terminated"])
def test_an_end_by_any_of_its_names(name: str, tmp_path: Path) -> None:
    file = tmp_path / "arrays.npz"
    np.savez(
        file, observations=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, **{name: REWARDS > 2}
    )
    assert load_dataset(file).num_episodes == np.count_nonzero(REWARDS[:-1] > 2) + 1
    listed = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS, name: True}
    assert TrajectoryDataset.from_episodes([listed]).terminated.tolist() == [True]


@pytest.mark.parametrize("field", ["observations", "actions", "rewards"])
@pytest.mark.parametrize("empty", [{}, (), {"a": {}}, {"a": REWARDS[:, None], "b": ()}])
def test_what_holds_no_arrays(field: str, empty: Any) -> None:
    arrays = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS, field: empty}
    with pytest.raises(UserError, match=f"data: episode 0: {field}: "):
        TrajectoryDataset.from_episodes([{**arrays, "terminated": True}])
    with pytest.raises(UserError, match=f"data: {field}: an empty (dict|tuple); arrays"):
        TrajectoryDataset.from_arrays(**arrays, terminals=ENDS)


def test_a_second_array_of_ends_is_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    ends = {"terminals": np.zeros(7), "dones": REWARDS > 2}
    np.savez(
        tmp_path / "two.npz", observations=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, **ends
    )
    assert load_dataset(tmp_path / "two.npz").num_episodes == 1
    assert "two.npz: 'dones' is left out, since 'terminals' is there" in caplog.text


def test_false_bounds_of_a_known_environment() -> None:
    """Pendulum-v1 takes -2 to 2, whatever a converted recording declares."""
    actions = np.array([[2.0], [-1.5], [0.5]])
    data = TrajectoryDataset.from_episodes(
        [Trajectory(OBSERVATIONS[:3], actions, REWARDS[:3], True, False)],
        env_spec=gymnasium.spec("Pendulum-v1"),
        action_space=spaces.Box(-1, 1, (1,), np.float32),
    )
    assert data.actions.tolist() == actions.tolist()
    assert data.action_space == spaces.Box(-2, 2, (1,), np.float32)


def test_fewer_declared_choices_than_the_environment_has() -> None:
    declared = {"action_space": spaces.Discrete(2), "env": "Acrobot-v1"}
    seen = np.zeros((3, 6), np.float32)
    episode = Trajectory(seen, np.array([0, 1, 0]), REWARDS[:3], True, False)
    assert TrajectoryDataset.from_episodes([episode], **declared).action_space.n == 3
    beyond = Trajectory(seen, np.array([0, 3, 0]), REWARDS[:3], True, False)
    with pytest.raises(UserError, match="integers from 0 to 2 expected"):
        TrajectoryDataset.from_episodes([beyond], **declared)


def test_fewer_declared_choices_than_the_named_environment_has() -> None:
    """A Minari dataset names its environment, which has all choices."""
    seen = np.zeros((3, 6), np.float32)
    episode = Trajectory(seen, np.array([0, 1, 0]), REWARDS[:3], True, False)
    declared = {"action_space": spaces.Discrete(2), "env_spec": gymnasium.spec("Acrobot-v1")}
    assert TrajectoryDataset.from_episodes([episode], **declared).action_space.n == 3
    acrobot = gymnasium.spec("Acrobot-v1")
    # Options may take choices away, and so may wrappers.
    wrapper = WrapperSpec("TransformAction", "gymnasium.wrappers:TransformAction", {})
    others = [
        gymnasium.spec("CartPole-v1"),
        dataclasses.replace(acrobot, kwargs={"mode": "two torques"}),
        dataclasses.replace(acrobot, additional_wrappers=(wrapper,)),
    ]
    for spec in others:
        declared["env_spec"] = spec
        assert TrajectoryDataset.from_episodes([episode], **declared).action_space.n == 2


def test_seconds_since_1970(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Float32 cannot hold them: they are stored less the middle of their range."""
    steps = 400
    seconds = 1.7e9 + np.arange(steps)
    observations = np.stack([seconds, RNG.normal(size=steps)], axis=1)
    file = tmp_path / "plant.npz"
    arrays = {
        "observations": observations,
        "actions": np.zeros((steps, 1), np.float32),
        "rewards": np.ones(steps),
        "terminals": np.arange(steps) % 10 == 9,
    }
    np.savez(file, **arrays)
    for on in ("memory", "disk"):
        data = load_dataset(file, on=on, cache=tmp_path / "cache")
        offset = data.observation_offset
        assert offset is not None
        assert offset.tolist() == [1.7e9 + 199.5, 0]
        np.testing.assert_array_equal(np.asarray(data.observations)[:, 0], np.arange(400) - 199.5)
        _, std = data.observation_statistics()
        np.testing.assert_allclose(std, observations.std(axis=0), rtol=1e-6)
        assert data.subset([1]).observation_offset is offset
    assert "float32 cannot tell the values of column 0 apart" in caplog.text
    exact = {**arrays, "observations": observations.astype(np.float32).astype(np.float64)}
    flat = [exact[key] for key in ("observations", "actions", "rewards", "terminals")]
    assert TrajectoryDataset.from_arrays(*flat).observation_offset is None


WRONG: dict[str, tuple[Any, str]] = {
    "ragged rewards": (
        {"observations": [[1.0]] * 2, "actions": [0, 1], "rewards": [1, [2]]},
        "episode 0: rewards: rows of different lengths",
    ),
    "a word for an end": (
        {"observations": [[1.0]], "actions": [0], "rewards": [1], "terminated": "yes"},
        "episode 0: terminals: values of type",
    ),
    "no field": ({"observations": [[1.0]], "rewards": [1]}, "episode 0: 'actions' missing"),
    "no dictionary": ([1, 2], "episode 0: a list; a dictionary of arrays expected"),
    "an end inside": (
        {"observations": [[1.0]] * 2, "actions": [0, 1], "rewards": [1, 1], "terminals": [1, 0]},
        "episode 0: terminals before the last step",
    ),
    "an end that is no flag": (
        {"observations": [[1.0]] * 2, "actions": [0, 1], "rewards": [1, 1], "terminals": [0, 2]},
        "episode 0: terminals: other values than 0 and 1",
    ),
    "too many flags": (
        {"observations": [[1.0]] * 2, "actions": [0, 1], "rewards": [1, 1], "terminated": [0] * 5},
        "episode 0: terminals: 5 flags for 2 steps; one, or one a step, expected",
    ),
    "too few flags": (
        {"observations": [[1.0]] * 3, "actions": [0] * 3, "rewards": [1] * 3, "done": [0, 1]},
        "episode 0: terminals: 2 flags for 3 steps; one, or one a step, expected",
    ),
    "no numbers to see": (
        {"observations": [[], []], "actions": [0, 1], "rewards": [1, 1]},
        "episode 0: observations: no numbers in a step; at least one expected",
    ),
    "no numbers to do": (
        {"observations": [[1.0], [2.0]], "actions": [[], []], "rewards": [1, 1]},
        "episode 0: actions: no numbers in a step; at least one expected",
    ),
    "ragged": (
        {"observations": [[1.0], [1.0, 2.0]], "actions": [0, 1], "rewards": [1, 1]},
        "episode 0: observations: rows of different lengths",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_episodes(case: str, tmp_path: Path) -> None:
    episode, message = WRONG[case]
    with pytest.raises(UserError, match=f"data: {message}"):
        TrajectoryDataset.from_episodes([episode])
    file = tmp_path / "own.json"
    file.write_text(json.dumps({"episodes": [episode]}))
    with pytest.raises(UserError, match=rf"own.json: {message}.* \(read as a JSON file of ep"):
        load_dataset(file)


@pytest.mark.parametrize("method", range(1, 15))
def test_a_npz_file_with_another_compression(method: int, tmp_path: Path) -> None:
    """A changed byte: zipfile, zlib, bz2 and lzma each say it by an exception of their own."""
    file = tmp_path / "own.npz"
    np.savez(file, observations=OBSERVATIONS, actions=ACTIONS, rewards=REWARDS, terminals=ENDS)
    content = bytearray(file.read_bytes())
    for signature, place in ((b"PK\3\4", 8), (b"PK\1\2", 10)):
        content[content.index(signature) + place] = method
    file.write_bytes(content)
    with pytest.raises(UserError, match=r"own.npz: does not read as .npz"):
        load_dataset(file)


def test_npz_and_json_files(tmp_path: Path) -> None:
    same = TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, REWARDS, ENDS, LATER)
    arrays = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS}
    np.savez(tmp_path / "own.npz", **arrays, terminations=ENDS, truncations=LATER)
    lists = {key: values.tolist() for key, values in arrays.items()}
    flat = {**lists, "terminals": ENDS, "timeouts": LATER}
    (tmp_path / "flat.json").write_text(json.dumps(flat))
    for encoding in ("utf-8-sig", "utf-16"):  # as Windows' programs write them
        (tmp_path / f"{encoding}.json").write_text(json.dumps(flat), encoding=encoding)
    for name in ("own.npz", "flat.json", "utf-8-sig.json", "utf-16.json"):
        data = load_dataset(tmp_path / name)
        assert data.name == name.partition(".")[0]
        for field in ("observations", "actions", "rewards", "offsets", "terminated", "truncated"):
            np.testing.assert_array_equal(getattr(data, field), getattr(same, field))
    cut = load_dataset(tmp_path / "own.npz", episode_length=2)
    assert cut.lengths.tolist() == [2, 1, 2, 2]
    assert cut.truncated.tolist() == [True, False, True, False]


def test_what_is_not_needed_is_not_read(tmp_path: Path) -> None:
    """Pickled or ragged infos; null in JSON means that there is none."""
    arrays = {"observations": OBSERVATIONS, "actions": ACTIONS, "rewards": REWARDS}
    infos = np.array([{}, [1]], dtype=object)
    np.savez(tmp_path / "own.npz", **arrays, terminals=ENDS, infos=infos)
    lists = {key: values.tolist() for key, values in arrays.items()}
    flat = {**lists, "infos": [[1], [1, 2]], "terminals": None, "done": ENDS, "timeouts": None}
    (tmp_path / "own.json").write_text(json.dumps(flat))
    for name in ("own.npz", "own.json"):
        data = load_dataset(tmp_path / name)
        assert data.lengths.tolist() == [3, 4]
        np.testing.assert_array_equal(data.observations, OBSERVATIONS)
    one = {**lists, "terminals": None, "done": True}
    assert TrajectoryDataset.from_episodes([one]).terminated.tolist() == [True]


def bytes_inside(file: Path) -> None:
    np.savez(file, actions=ACTIONS, rewards=REWARDS)
    with zipfile.ZipFile(file, "a") as archive:
        archive.writestr("observations", b"nothing")


BROKEN = {
    "pickles.npz": (
        lambda file: np.savez(file, observations=np.array([{}], dtype=object)),
        "does not read as .npz: array 'observations': Object arrays cannot be loaded",
    ),
    "words.npz": (lambda file: file.write_text("no zip"), "does not read as .npz"),
    "text.npz": (
        lambda file: np.savez(
            file, observations=OBSERVATIONS, actions=ACTIONS, rewards=np.array(["a"] * 7)
        ),
        "rewards: values of type <U1: numbers expected",
    ),
    "bytes.npz": (lambda file: bytes_inside(file), "observations: a bytes; an array expected"),
    "empty.npz": (lambda file: np.savez(file), "array 'observations' missing; a .npz file has"),
    "short.json": (lambda file: file.write_text('{"observations": [['), "does not read as JSON"),
    "number.json": (lambda file: file.write_text("7"), "a list of episodes or flat arrays"),
    "none.json": (lambda file: file.write_text("[]"), "no episodes"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_broken_files_are_named_with_their_format(name: str, tmp_path: Path) -> None:
    make, message = BROKEN[name]
    make(tmp_path / name)
    with pytest.raises(UserError) as caught:
        load_dataset(tmp_path / name)
    assert str(tmp_path / name) in str(caught.value)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_source_of_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It comes before ours, may be lazy, and can be asked alone."""
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))

    files = [tmp_path / "some.rows"]
    files[0].touch()

    def read_rows(name: str) -> Recording | None:
        if not name.endswith(".rows"):
            return None

        def episodes() -> Iterator[Trajectory]:
            for _ in range(2):
                yield Trajectory(OBSERVATIONS[:3], ACTIONS[:3], REWARDS[:3], True, False)

        return Recording("mine", episodes, "a file of rows", name, files=files)

    register_source("rows", read_rows)
    register_source("broken", lambda name: 7 if name == "seven" else None)
    for on in ("memory", "disk"):
        data = load_dataset("some.rows", on=on, cache=tmp_path)
        assert (data.name, data.num_episodes) == ("mine", 2)
    assert load_dataset("some.rows", source="rows").num_steps == 6
    files.clear()
    with pytest.raises(UserError, match="does not say which files it is made of"):
        load_dataset("some.rows", on="disk", cache=tmp_path)
    whole = TrajectoryDataset.from_arrays(OBSERVATIONS, ACTIONS, REWARDS, ENDS)
    register_source("whole", lambda name: whole if name == "whole" else None)
    assert load_dataset("whole", on="disk", cache=tmp_path) is whole
    assert load_dataset("whole", env=lambda: Plain()).env_spec is None
    with pytest.raises(UserError, match="not one of data source d3rlpy"):
        load_dataset("some.rows", source="d3rlpy")
    with pytest.raises(UserError, match=r"unknown data source 'row'; did you mean rows\?"):
        load_dataset("some.rows", source="row")
    with pytest.raises(UserError, match=r"'some.rows': data source 'rows' has no options, got len"):
        load_dataset("some.rows", length=3)
    with pytest.raises(UserError, match="data source broken: gave a int"):
        load_dataset("seven")


def test_a_sources_options_are_keywords(monkeypatch: pytest.MonkeyPatch) -> None:
    """As those of mixers, encoders and loggers are."""
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))

    @dataclasses.dataclass(frozen=True)
    class Options:
        steps: int = 3

    def some(name: str, steps: int) -> TrajectoryDataset | None:
        if name != "some":
            return None
        columns = np.zeros((steps, 2)), np.zeros((steps, 1)), np.zeros(steps)
        return TrajectoryDataset.from_arrays(*columns, np.arange(steps) == steps - 1)

    register_source("some", some, Options)
    assert load_dataset("some").num_steps == 3
    assert load_dataset("some", steps=5).num_steps == 5
    with pytest.raises(UserError, match="option steps must be int, got '5'"):
        load_dataset("some", steps="5")
    with pytest.raises(UserError, match=r"unknown option 'step'; did you mean steps\?"):
        load_dataset("some", step=5)


def test_data_of_a_source_are_read_as_they_were(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the offset that was subtracted, and in the shapes of their spaces."""
    monkeypatch.setattr(SOURCES, "_entries", dict(SOURCES._entries))
    seconds, images = 1.7e9 + np.arange(7.0), RNG.integers(0, 256, (7, 2, 4), np.uint8)
    seen = {"seconds": seconds[:, None], "image": images}
    data = TrajectoryDataset.from_arrays(seen, ACTIONS, REWARDS, ENDS)
    assert data.observation_offset is not None
    register_source("clock", lambda name: data if name == "clock" else None)
    first = next(iter(open_recording("clock").episodes()))
    np.testing.assert_array_equal(first.observations["seconds"][:, 0], seconds[:3])
    np.testing.assert_array_equal(first.observations["image"], images[:3])
    assert first.observations["image"].dtype == np.uint8
    box = spaces.Box(-1, 1, (2,))
    env = SimpleNamespace(observation_space=data.observation_space, action_space=box)
    again = load_dataset("clock", env=env)
    np.testing.assert_array_equal(again.observation_offset, data.observation_offset)
    np.testing.assert_array_equal(again.observations[:], data.observations[:])


def test_a_dictionary_for_each_step_is_one_of_arrays() -> None:
    """As a loop with an environment of Dict observations records them."""
    arrays = {"place": OBSERVATIONS, "inner": {"door": np.arange(7) % 2}}
    steps = [
        {"place": place, "inner": {"door": door}}
        for place, door in zip(OBSERVATIONS, arrays["inner"]["door"], strict=True)
    ]
    one, other = (
        TrajectoryDataset.from_episodes(
            [{"observations": each, "actions": ACTIONS, "rewards": REWARDS}], name="own"
        )
        for each in (arrays, steps)
    )
    assert one.observation_space == other.observation_space
    assert np.array_equal(one.observations, other.observations)
    del steps[3]["inner"]
    with pytest.raises(UserError, match="episode 0: observations: a dictionary with place, inner"):
        TrajectoryDataset.from_episodes(
            [{"observations": steps, "actions": ACTIONS, "rewards": REWARDS}], name="own"
        )

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import minari
import numpy as np
import pytest
from collect_cases import Collections, cartpole

from aaren_rl.collect import collect
from aaren_rl.collect.policies import load_policy
from aaren_rl.collect.rollouts import actor_of, play
from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.envs.make import make_env
from aaren_rl.errors import UserError
from aaren_rl.training import train

NAMES = {"ppo": "cartpole", "dqn": "cartpole", "sac": "pendulum"}
KINDS = list(NAMES)


def dataset(collections: Collections, kind: str, quality: str) -> TrajectoryDataset:
    return load_trajectories(folder(collections, kind, quality))


def folder(collections: Collections, kind: str, quality: str) -> Path:
    return collections.root(kind) / "collected" / NAMES[kind] / f"{quality}-v0"


def progress(collections: Collections, kind: str) -> dict[str, Any]:
    collections.rows(kind)
    run = collections.config(kind).run_folder
    content: dict[str, Any] = json.loads((run / "progress.json").read_text())
    return content


@pytest.mark.parametrize("kind", KINDS)
def test_sizes_and_reference_scores(kind: str, collections: Collections) -> None:
    config = collections.config(kind)
    rows = {row["dataset"].split("/")[-1]: row for row in collections.rows(kind)}
    for quality in ("random", "medium", "expert"):
        assert rows[f"{quality}-v0"]["steps"] == config.steps
    assert rows["medium-expert-v0"]["steps"] == 2 * config.steps
    references = json.loads((config.run_folder / "references.json").read_text())
    highest = references.get("expert", config.expert_return)
    for name, row in rows.items():
        data = dataset(collections, kind, name.removesuffix("-v0"))
        assert data.reference_scores == (references["random"], highest)
        assert (data.num_steps, data.num_episodes) == (row["steps"], row["episodes"])
        assert data.episode_returns.mean() == pytest.approx(row["return_mean"])
        assert data.normalized_score(data.episode_returns).mean() == pytest.approx(  # type: ignore[union-attr]
            row["score_mean"]
        )


@pytest.mark.parametrize("kind", KINDS)
def test_medium_is_the_first_good_enough_evaluation(kind: str, collections: Collections) -> None:
    config, evaluations = collections.config(kind), progress(collections, kind)["evaluations"]
    references = json.loads((config.run_folder / "references.json").read_text())
    best = max(row["return_mean"] for row in evaluations)
    top = best if config.expert_return is None else config.expert_return
    for row in evaluations:
        reached = 100 * (row["return_mean"] - references["random"]) / (top - references["random"])
        if reached >= config.medium_score:
            break
    card = json.loads((folder(collections, kind, "medium") / "policy/policy.json").read_text())
    assert card["step"] == row["step"]
    assert dataset(collections, kind, "medium-replay").num_steps == row["step"]
    card = json.loads((folder(collections, kind, "expert") / "policy/policy.json").read_text())
    assert card["evaluation_return_mean"] == best


@pytest.mark.parametrize("kind", KINDS)
def test_the_policy_beside_the_data_is_the_evaluated_one(
    kind: str, collections: Collections
) -> None:
    place = folder(collections, kind, "medium") / "policy"
    card = json.loads((place / "policy.json").read_text())
    policy, config = load_policy(place), collections.config(kind)
    episodes = play(
        actor_of(policy, 10_000, 0.05 if kind == "dqn" else 0.0),
        config.environment,
        seed=10_000,
        episodes=config.evaluation_episodes,
    )
    returns = [float(np.sum(episode.rewards)) for episode in episodes]
    assert np.mean(returns) == card["evaluation_return_mean"]


@pytest.mark.parametrize("kind", KINDS)
def test_medium_expert_is_both(kind: str, collections: Collections) -> None:
    both = dataset(collections, kind, "medium-expert")
    parts = [dataset(collections, kind, quality) for quality in ("medium", "expert")]
    for field in ("observations", "actions", "rewards", "terminated", "truncated"):
        wanted = np.concatenate([getattr(part, field) for part in parts])
        np.testing.assert_array_equal(getattr(both, field), wanted)


@pytest.mark.parametrize("quality", ["random", "medium", "medium-replay", "expert"])
@pytest.mark.parametrize("kind", KINDS)
def test_every_step_is_the_environments(kind: str, quality: str, collections: Collections) -> None:
    """CartPole and Pendulum can be put into any state, so that each step can be taken again."""
    env = make_env(minari.MinariDataset(folder(collections, kind, quality) / "data").env_spec)
    inner: Any = env.unwrapped
    env.reset(seed=0)
    with h5py.File(folder(collections, kind, quality) / "data" / "main_data.hdf5") as file:
        for index in range(len(file)):
            group = {name: node[()] for name, node in file[f"episode_{index}"].items()}
            for t, action in enumerate(group["actions"]):
                before, after = group["observations"][t : t + 2]
                if kind == "sac":
                    inner.state = np.array([np.arctan2(before[1], before[0]), before[2]])
                else:
                    inner.state, inner.steps_beyond_terminated = tuple(before), None
                seen, reward, terminated, _, _ = inner.step(action)
                np.testing.assert_allclose(seen, after, rtol=1e-4, atol=1e-4)
                assert reward == pytest.approx(group["rewards"][t], abs=1e-3)
                assert terminated == group["terminations"][t]


@pytest.mark.parametrize("kind", KINDS)
def test_ends_are_true_and_the_cut_ones_are_truncated(kind: str, collections: Collections) -> None:
    """Episodes are cut at the end of a dataset and, in the history, at checkpoints."""
    checkpoints = {row["step"] for row in progress(collections, kind)["evaluations"]}
    for quality in ("random", "medium", "medium-replay"):
        data = dataset(collections, kind, quality)
        assert (data.terminated ^ data.truncated).all()
        cut = {data.num_steps} | (checkpoints if quality == "medium-replay" else set())
        whole = np.array([end not in cut for end in np.cumsum(data.lengths).tolist()])
        if kind == "sac":  # Pendulum knows its time limit alone
            assert not data.terminated.any()
            assert set(data.lengths[whole]) <= {200}
        else:
            assert data.terminated[whole].all()
            assert data.lengths.max() < 500


def test_frames_are_of_the_same_episodes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("aaren_rl.collect.rollouts.BATCH", 2)  # fewer environments that render
    small = {"train_steps": 256, "evaluate_every": 128, "steps": 60, "reference_episodes": 30}
    score = {"expert_return": 500.0, "medium_score": 0.5}
    first = cartpole(tmp_path, datasets=("random", "medium"), pixels=16, **small, **score)
    rows = collect(first)
    names = [row["dataset"].split("/")[-1] for row in rows]
    assert names == ["random-v0", "medium-v0", "random-pixels-v0", "medium-pixels-v0"]
    for quality in ("random", "medium"):
        numbers, frames = (
            load_trajectories(first.minari_root / first.dataset_id(quality, pixels=pixels))  # type: ignore[arg-type]
            for pixels in (False, True)
        )
        for field in ("actions", "rewards", "offsets", "terminated", "reference_scores"):
            np.testing.assert_array_equal(getattr(frames, field), getattr(numbers, field))
        assert frames.observations.dtype == np.uint8
        env = make_env(frames.env_spec)  # type: ignore[arg-type]
        assert env.observation_space == frames.observation_space
        env.unwrapped.inner.reset()  # type: ignore[attr-defined]
        core: Any = env.unwrapped.inner.unwrapped  # type: ignore[attr-defined]
        for step in (0, 17):  # CartPole can be put into any state, and then renders it
            core.state = numbers.observations[step].astype(np.float64)
            drawn = env.unwrapped._frame().astype(int)  # type: ignore[attr-defined]
            newest = frames.observations[step].reshape(16, 16, 3)[..., -1:]
            assert np.abs(drawn - newest).mean() < 0.5
        env.close()
    theirs = minari.MinariDataset(first.minari_root / rows[-1]["dataset"] / "data")
    shown = np.concatenate([episode.observations[:-1] for episode in theirs])
    np.testing.assert_array_equal(shown.reshape(60, -1), frames.observations)
    wanted = "random-pixels-v0: there already, and not of this run; --pixels 16 there, 32 here"
    with pytest.raises(UserError, match=wanted):
        collect(replace(first, pixels=32, resume=True))


def test_minari_lists_and_reads_them(
    collections: Collections, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = collections.root("ppo")
    monkeypatch.setenv("MINARI_DATASETS_PATH", str(root))
    names = {row["dataset"] for row in collections.rows("ppo")}
    assert set(minari.list_local_datasets()) == names
    theirs = minari.load_dataset("collected/cartpole/medium-v0")
    assert theirs.env_spec.id == "CartPole-v1"
    assert {len(episode.observations) - len(episode.actions) for episode in theirs} == {1}


def test_agents_train_on_them(collections: Collections, tmp_path: Path, tiny: Any) -> None:
    source = str(folder(collections, "ppo", "medium-replay"))
    summary = train(tiny(tmp_path / "run", dataset=source))
    assert summary["scores"][0]["normalized"]

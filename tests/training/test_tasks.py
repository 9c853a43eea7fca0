"""Several datasets: drawn from by weight, each with its own returns, targets and embedding."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gymnasium import spaces
from line_task import LINE, SMALL, Line, line_data, line_file

import aaren_rl as arl
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.data import EpisodeSampler, StreamSampler, TrajectoryDataset, WindowSampler
from aaren_rl.data.mixture import MixedDataset, mix, weighted_names
from aaren_rl.errors import UserError
from aaren_rl.export.command import write_step
from aaren_rl.options import parse
from aaren_rl.training.config import TrainConfig


def small_and_large() -> tuple[TrajectoryDataset, TrajectoryDataset]:
    """Rewards of 1 and actions below 0; rewards of 100 and actions above 0."""
    found = []
    for name, reward, sign in (("small", 1.0, -1), ("large", 100.0, 1)):
        data = line_data(4 if sign < 0 else 8)
        arrays: Any = data.actions, np.full(data.num_steps, reward)
        end = np.arange(data.num_steps) % 10 == 9
        made = TrajectoryDataset.from_arrays(
            data.observations, sign * np.abs(arrays[0]), arrays[1], end, name=name
        )
        found.append(replace(made, observation_space=data.observation_space))
    return found[0], found[1]


SMALL_DATA, LARGE_DATA = small_and_large()


def mixture() -> MixedDataset:
    return mix([(SMALL_DATA, 3), (LARGE_DATA, 1)])


@pytest.mark.parametrize("kind", ["windows", "streams", "episodes"])
def test_samplers_draw_by_weight_and_go_on_where_they_stood(kind: str) -> None:
    def make() -> Any:
        if kind == "episodes":
            return EpisodeSampler(mixture(), batch_steps=40, seed=0)
        cls = StreamSampler if kind == "streams" else WindowSampler
        return cls(mixture(), batch_size=16, context_length=10, seed=0)

    sampler = make()
    counts = np.zeros(2)
    for _ in range(40):
        batch = sampler.sample()
        tasks = np.broadcast_to(batch.tasks.numpy(), batch.mask.shape)[batch.mask.numpy()]
        signs = batch.actions.numpy()[batch.mask.numpy()][:, 0]
        assert (np.sign(signs) == 2 * tasks - 1).all()
        counts += np.bincount(tasks, minlength=2)
    assert (
        abs(counts[0] / counts.sum() - 0.75) < 0.06
    )  # though there are twice as many of the other
    again = make()
    again.load_state_dict(sampler.state_dict())
    assert sampler.sample().observations.equal(again.sample().observations)


def test_statistics_are_of_the_weighted_mixture() -> None:
    mean, std = mixture().action_statistics()
    one, two = SMALL_DATA.actions.astype(float), LARGE_DATA.actions.astype(float)
    drawn = np.concatenate([np.tile(one, (6, 1)), two])  # 3 : 1 of 40 and 80 steps
    np.testing.assert_allclose([mean, std], [drawn.mean(axis=0), drawn.std(axis=0)], rtol=1e-5)


def test_data_in_memory_are_mixed_in_the_spaces_of_the_environment() -> None:
    """Before that their guessed bounds differ."""
    data, ends = line_data(4), np.arange(40) % 10 == 9
    guessed = [
        TrajectoryDataset.from_arrays(
            data.observations, scale * data.actions, data.rewards, ends, name=name
        )
        for name, scale in (("one", 2), ("two", 3))
    ]
    with pytest.raises(UserError, match=r"one has .* two has .* from an environment \(--env\)"):
        arl.train(guessed, env="none", **SMALL)

    class Wide(Line):
        action_space = spaces.Box(-5, 5, (1,), np.float32)

    assert len(arl.train(guessed, env=Wide, **SMALL | {"updates": 1}).scores) == 2


@pytest.mark.parametrize("name", ["decision-aaren", "decision-transformer", "behavior-cloning"])
def test_tells_tasks_apart_by_their_embedding(name: str, tmp_path: Path) -> None:
    shape = {**SMALL, "updates": 60, "learning_rate": 1e-2, "task_embedding": True}
    run = arl.train(
        [(SMALL_DATA, 1), (LARGE_DATA, 1)], name, env=LINE, out=tmp_path / "run", **shape
    )
    assert [(s.task, s.target_return) for s in run.scores] == (
        [("small", None), ("large", None)]
        if name == "behavior-cloning"
        else [("small", 10.0), ("large", 1000.0)]
    )
    tags = arl.training.loggers.score_scalars(run.scores)
    where = "" if name == "behavior-cloning" else "/target_1000"
    assert f"evaluation/large{where}/score" in tags
    assert tags["evaluation/score"] == np.mean([score.score_mean for score in run.scores])
    agent = arl.load_agent(tmp_path / "run")
    seen = np.zeros((2, 3))
    low, high = (agent.policy(2, task=task).act(seen) for task in ("small", "large"))
    assert (low < 0).all()
    assert (high > 0).all()
    rows = arl.evaluate(agent, LINE, episodes=2).rows
    assert [row.task for row in rows] == ["small", "large"]
    assert [row.task for row in arl.evaluate(agent, LINE, episodes=2, task="large").rows] == [
        "large"
    ]
    agent.for_task("large").save(tmp_path / "alone")
    np.testing.assert_array_equal(arl.load_agent(tmp_path / "alone").policy(2).act(seen), high)
    with pytest.raises(UserError, match=r"--task is needed: .*its tasks are small, large"):
        agent.policy(2)
    with pytest.raises(UserError, match=r"--task middle: unknown; its tasks are small, large"):
        agent.policy(2, task="middle")


def test_all_ways_of_acting_know_the_task_and_its_returns(tmp_path: Path) -> None:
    from aaren_rl.runtime import OnnxPolicy

    how = {**SMALL, "updates": 2, "layers": 2, "heads": 2, "task_embedding": True}
    run = arl.train([(SMALL_DATA, 1), (LARGE_DATA, 2)], env="none", **how)
    agent: Any = run.agent.for_task("large")
    assert agent.spec.target_returns == (1000.0,)
    assert agent.spec.returns_scale == pytest.approx(LARGE_DATA.returns_to_go.std(), rel=1e-5)
    write_step(agent, tmp_path / "step", "onnx")
    policies = [agent.policy(3), agent.policy(3, mode="window")]
    policies += [SteppingPolicy(agent, np.full(3, 1000.0)), OnnxPolicy(tmp_path / "step", 3)]
    rng, rewards = np.random.default_rng(0), None
    for _ in range(4):
        seen = rng.normal(size=(3, 3))
        actions, *others = (policy.act(seen, rewards) for policy in policies)
        rewards = np.full(3, 100.0)
        for other in others:
            np.testing.assert_allclose(actions, other, atol=1e-5)
    with pytest.raises(UserError, match="has learned several tasks: one dataset expected"):
        arl.finetune(run, LINE, data=mixture())
    with pytest.raises(UserError, match="--task is needed"):
        write_step(run.agent, tmp_path / "other", "onnx")


def test_resumed_bit_for_bit(tmp_path: Path) -> None:
    one, two = line_file(tmp_path / "a.hdf5"), line_file(tmp_path / "b 2.hdf5", seed=1)
    how = {**SMALL, "env": LINE, "task_embedding": True, "schedule": "constant", "warmup": 0.0}
    several = [(one, 2.0), (two, 1.0)]
    whole = arl.train(several, **how)
    arl.train(several, out=tmp_path / "run", **{**how, "updates": 10})
    resumed = arl.train(several, out=tmp_path / "run", resume=True, **how)
    for first, second in zip(whole.agent.parameters(), resumed.agent.parameters(), strict=True):
        assert first.equal(second)
    assert resumed.summary["updates"] == 20
    assert {row["task"] for row in resumed.summary["scores"]} == {"a", "b 2"}


def test_names_and_weights(tmp_path: Path) -> None:
    odd = tmp_path / "odd:3"
    odd.mkdir()
    text = f"module:Id + C:\\data\\x.hdf5:2 + {odd} + {odd}:0.5 + mujoco/hopper/medium-v0:1e1"
    assert weighted_names(text) == [
        ("module:Id", 1.0),
        ("C:\\data\\x.hdf5", 2.0),
        (str(odd), 1.0),
        (str(odd), 0.5),
        ("mujoco/hopper/medium-v0", 10.0),
    ]
    assert weighted_names("alone:2") == [("alone:2", 1.0)]
    config = parse(TrainConfig, ["--dataset", "a/b-v0:2", "c", "--updates", "3"], prog="train")
    assert config.dataset == "a/b-v0:2 + c"
    assert config.run_folder == Path("runs/a-b-v0-2-c/decision-aaren/seed-0")
    for weight in ("0", "-1", "nan", "inf"):
        with pytest.raises(UserError, match=rf"--dataset a:{weight}: .*positive number"):
            weighted_names(f"a:{weight} + b")


def test_weights_may_be_numbers_of_numpy() -> None:
    mixed = mix([(SMALL_DATA, np.float32(2)), (LARGE_DATA, np.int64(1))])  # type: ignore[list-item]
    assert mixed.weights == (2.0, 1.0)


def test_bad_calls_are_refused() -> None:
    other = TrajectoryDataset.from_arrays(
        np.zeros((4, 2)), np.zeros((4, 1)), np.zeros(4), [0, 0, 0, 1], name="other"
    )
    for several, message in (
        ([(SMALL_DATA, 0)], "dataset small: weight 0; a positive number"),
        ([(SMALL_DATA, -1), (LARGE_DATA, 1)], "dataset small: weight -1"),
        ([SMALL_DATA, SMALL_DATA], "dataset small: given twice"),
        ([SMALL_DATA, other], r"observation_space: small has .*, other has"),
        ([], "at least one"),
    ):
        with pytest.raises(UserError, match=message):
            arl.train(several, env="none", **SMALL)  # type: ignore[arg-type]
    with pytest.raises(UserError, match="--task-embedding needs several datasets"):
        arl.train(SMALL_DATA, env="none", task_embedding=True, **SMALL)
    agent = arl.train(SMALL_DATA, env="none", **SMALL).agent
    with pytest.raises(UserError, match="--task small: this agent has no tasks"):
        agent.policy(1, task="small")

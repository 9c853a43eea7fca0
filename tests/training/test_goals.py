"""Goals in hindsight: chosen in the same episode, trained on, acted on, counted, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from gymnasium import spaces
from line_task import SMALL, line_data

import aaren_rl as arl
from aaren_rl.agents import AGENTS, AgentConfig
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.data import EpisodeSampler, StreamSampler, TrajectoryDataset, WindowSampler
from aaren_rl.data.hindsight import HindsightGoals
from aaren_rl.errors import UserError
from aaren_rl.export.command import write_step
from aaren_rl.training.build import build_agent
from aaren_rl.training.config import TrainConfig

BOX = spaces.Box(-np.inf, np.inf, (1,), np.float64)
SEEN = spaces.Dict(observation=BOX, achieved_goal=BOX, desired_goal=BOX)
TAKEN = spaces.Box(-1, 1, (1,), np.float32)
ACHIEVED, DESIRED = 0, 1  # columns


class Way(gym.Env[Any, Any]):
    """A point on a line is to be within 0.5 of a goal; the interface is that of PointMaze."""

    observation_space, action_space = SEEN, TAKEN

    def __init__(self, says: bool = True) -> None:
        self.says = says

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[Any, dict[str, Any]]:
        super().reset(seed=seed)
        self.place, self.goal = np.zeros(1), self.np_random.uniform(-5, 5, 1)
        return self._seen(), {}

    def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
        self.place = self.place + np.clip(action, -1, 1)
        near = bool(np.abs(self.place - self.goal)[0] <= 0.5)
        return self._seen(), float(near), near, False, {"success": near} if self.says else {}

    def _seen(self) -> dict[str, np.ndarray]:
        where = {"observation": self.place, "achieved_goal": self.place}
        return {**where, "desired_goal": self.goal}


gym.register("tests/Way-v0", Way, max_episode_steps=20)


def walks(episodes: int = 40, length: int = 12) -> TrajectoryDataset:
    """Walks in one direction, which were sent to a goal that none of them reaches."""
    found = []
    for seed in range(episodes):
        rng = np.random.default_rng(seed)
        actions = np.sign(rng.normal()) * rng.uniform(0.3, 1, (length, 1))
        place = np.concatenate([[[0.0]], np.cumsum(actions, axis=0)])
        seen = {"observation": place, "achieved_goal": place, "desired_goal": 0 * place + 99}
        each = {"observations": seen, "actions": actions, "rewards": np.zeros(length)}
        found.append({**each, "truncated": True})
    return TrajectoryDataset.from_episodes(found, observation_space=SEEN, action_space=TAKEN)


DATA = walks()


def make_sampler(kind: str, seed: int = 0, rank: int = 0, world_size: int = 1) -> Any:
    shared = {"seed": seed, "rank": rank, "world_size": world_size}
    shared["goals"] = HindsightGoals(DATA, seed)  # type: ignore[assignment]
    if kind == "episodes":
        return EpisodeSampler(DATA, batch_steps=30, **shared)  # type: ignore[arg-type]
    cls = StreamSampler if kind == "streams" else WindowSampler
    return cls(DATA, batch_size=8, context_length=5, **shared)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["windows", "streams", "episodes"])
def test_a_goal_is_achieved_later_in_the_same_episode(kind: str) -> None:
    sampler, kept, steps = make_sampler(kind), 0, 0
    for _ in range(20):
        batch = sampler.sample()
        seen = batch.observations.numpy()
        for row, time in np.argwhere(batch.mask.numpy()):
            place, goal = seen[row, time, ACHIEVED], seen[row, time, DESIRED]
            # A place belongs to one episode: its sign is the direction, its digits the walk.
            found = np.flatnonzero(np.isclose(DATA.observations[:, ACHIEVED], goal, atol=1e-6))
            here = np.flatnonzero(np.isclose(DATA.observations[:, ACHIEVED], place, atol=1e-6))
            if place != 0 and goal != 0:
                assert found[0] // 12 == here[0] // 12
                assert found[0] > here[0] or found[0] % 12 == 11
            steps += 1
            kept += time > 0 and goal == seen[row, time - 1, DESIRED]
        assert not seen[~batch.mask.numpy()].any()
    assert kept > steps / 2  # a goal is not another one at every step


@pytest.mark.parametrize("kind", ["windows", "streams", "episodes"])
def test_goals_are_seeded_and_go_on_where_they_stood(kind: str) -> None:
    first, second = make_sampler(kind), make_sampler(kind)
    assert first.sample().observations.equal(second.sample().observations)
    third = make_sampler(kind)
    third.load_state_dict(first.state_dict())
    for _ in range(3):
        batch = first.sample()
        assert batch.observations.equal(third.sample().observations)
    assert not batch.observations.equal(make_sampler(kind, seed=1).sample().observations)


def test_processes_share_a_batch() -> None:
    whole, second = make_sampler("windows"), make_sampler("windows", rank=1, world_size=2)
    assert whole.sample().observations[4:].equal(second.sample().observations)


AGENTS_HERE = ["decision-aaren", "decision-transformer", "behavior-cloning"]


@pytest.mark.parametrize("name", AGENTS_HERE)
def test_reaches_goals_that_the_data_do_not_have(name: str, tmp_path: Path) -> None:
    shape = {**SMALL, "updates": 150, "context_length": 5, "learning_rate": 1e-2}
    run = arl.train(
        DATA, name, env="tests/Way-v0", condition="goal", out=tmp_path, **{**shape, "episodes": 8}
    )
    assert [score.target_return for score in run.scores] == [None]
    assert run.summary["scores"][0]["success"] == run.scores[0].success
    agent = arl.load_agent(tmp_path)
    [row] = arl.evaluate(agent, "tests/Way-v0", episodes=30).rows
    assert row.success is not None
    assert row.success >= 0.9
    [unsaid] = arl.evaluate(agent, lambda: Way(says=False), episodes=30).rows
    assert unsaid.success == row.success  # by the reward 1
    tags = arl.training.loggers.score_scalars(run.scores)
    assert tags["evaluation/success"] == run.scores[0].success


@pytest.mark.parametrize("name", ["decision-aaren", "behavior-cloning"])
def test_follows_the_environments_goal_in_every_way_of_acting(name: str, tmp_path: Path) -> None:
    from aaren_rl.runtime import OnnxPolicy

    model = AgentConfig(width=16, layers=2, heads=2, context_length=6, condition="goal")
    config = TrainConfig(agent=name, model=model)
    agent: Any = build_agent(config, DATA, None).eval()
    assert agent.observation_mean[DESIRED] == agent.observation_mean[ACHIEVED]
    write_step(agent, tmp_path / "step", "onnx")
    policies = [agent.policy(3), OnnxPolicy(tmp_path / "step", 3)]
    if agent.has_memory:
        policies += [agent.policy(3, mode="window"), SteppingPolicy(agent, np.zeros(3))]
    rng, rewards = np.random.default_rng(0), None
    for step in range(6):
        place = rng.normal(size=(3, 1))
        goal = rng.normal(size=(3, 1)) if step == 3 else np.full((3, 1), 2.0)  # it moves once
        seen = {"observation": place, "achieved_goal": place, "desired_goal": goal}
        actions, *others = (policy.act(seen, rewards) for policy in policies)
        rewards = rng.normal(size=3)
        for other in others:
            np.testing.assert_allclose(actions, other, atol=1e-5)
    others = [policy.act({**seen, "desired_goal": goal + 3}, rewards) for policy in policies]
    assert not np.allclose(actions, others[0])


def test_bad_calls_are_refused() -> None:
    for name in AGENTS_HERE:
        with pytest.raises(UserError, match=r"--condition goal: .*achieved_goal and desired_goal"):
            arl.train(line_data(), name, env="none", condition="goal", **SMALL)
    with pytest.raises(UserError, match="--condition goal cannot be asked for a return"):
        arl.train(DATA, env="none", condition="goal", target_return=3.0, **SMALL)
    trained = arl.train(
        DATA, env="none", condition="goal", head="tanh-gaussian", **{**SMALL, "updates": 1}
    )
    with pytest.raises(UserError, match=r"--condition goal cannot be fine-tuned: .*--init-from"):
        arl.finetune(trained, "tests/Way-v0", data=DATA, steps=5)
    agent = AGENTS["decision-aaren"].make
    assert agent.asks_return  # of the class; the condition is the instance's

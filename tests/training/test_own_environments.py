"""Training on data whose environment is the user's own."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec

from aaren_rl.agents import load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.to_minari import write_minari
from aaren_rl.data.trajectory import Trajectory
from aaren_rl.envs import make_vector_env, time_limit
from aaren_rl.errors import UserError
from aaren_rl.evaluation import evaluate
from aaren_rl.training import train

MODULE = """
import gymnasium
import numpy as np
from gymnasium import spaces


class Line(gymnasium.Env):
    observation_space = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space = spaces.Box(-1, 1, (1,), np.float32)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.t = 0
        return self.see(), {}

    def see(self):
        return self.np_random.normal(size=3).astype(np.float32)

    def step(self, action):
        self.t += 1
        return self.see(), 1.0, self.t >= 10, False, {}


class Endless(Line):
    def step(self, action):
        return self.see(), 1.0, False, False, {}


class OldGym(Line):
    def step(self, action):
        return self.see(), 1.0, False, {}
"""

SEEN = spaces.Box(-np.inf, np.inf, (3,), np.float32)
TAKEN = spaces.Box(-1, 1, (1,), np.float32)


@pytest.fixture
def write(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Writes eight random episodes of ten steps, which pay 1 a step, and gives their folder."""
    (tmp_path / "own_environments.py").write_text(MODULE)
    monkeypatch.syspath_prepend(str(tmp_path))
    generator = np.random.default_rng(0)

    def written(
        name: str,
        env_spec: EnvSpec,
        observation_space: spaces.Space[Any] = SEEN,
        action_space: spaces.Space[Any] = TAKEN,
    ) -> str:
        observation_space.seed(0)
        action_space.seed(0)
        episodes = [
            Trajectory(
                observations=np.array([observation_space.sample() for _ in range(11)]),
                actions=np.array([action_space.sample() for _ in range(10)]),
                rewards=generator.permutation(np.ones(10)),
                terminated=True,
                truncated=False,
            )
            for _ in range(8)
        ]
        folder = write_minari(
            name,
            episodes,
            observation_space=observation_space,
            action_space=action_space,
            env_spec=env_spec,
            root=tmp_path / "minari",
        )
        return str(folder)

    return written


def test_without_a_time_limit(write: Any, tiny: Any, tmp_path: Path) -> None:
    data = write("own/endless-v0", EnvSpec("Endless-v0", "own_environments:Endless"))
    with pytest.warns(UserWarning, match="Endless-v0: it has no time limit.* 10 steps"):
        train(tiny(tmp_path / "run", dataset=data))
    agent = load_agent(tmp_path / "run" / "last")
    assert agent.spec.environment is not None
    assert time_limit(make_vector_env(agent.spec.environment, 1)) == 10
    assert evaluate(tmp_path / "run", episodes=2).rows[0].lengths == [10, 10]


def test_named_after_a_robot(write: Any, tiny: Any, tmp_path: Path) -> None:
    spec = EnvSpec("Line-v0", "own_environments:Line", max_episode_steps=100)
    for name in ("dmcontrol/hopper-hop-v0", "mujoco/hopper/medium-v0"):
        out = tmp_path / name.replace("/", "-")
        train(tiny(out, dataset=write(name, spec)))
        [row] = json.loads((out / "summary.json").read_text())["scores"]
        assert (row["target_return"], row["normalized"], row["score_mean"]) == (10.0, False, 10.0)


def test_discrete_observations(write: Any, tiny: Any, tmp_path: Path) -> None:
    spec = gymnasium.spec("FrozenLake-v1")
    data = write("own/lake-v0", spec, spaces.Discrete(16), spaces.Discrete(4))
    train(tiny(tmp_path / "run", dataset=data))
    assert load_agent(tmp_path / "run" / "last").spec.observation_size == 1
    assert len(evaluate(tmp_path / "run", episodes=3).rows[0].returns) == 3


def test_an_old_signature_is_refused_before_anything_is_written(
    write: Any, tiny: Any, tmp_path: Path
) -> None:
    spec = EnvSpec("OldGym-v0", "own_environments:OldGym", max_episode_steps=100)
    with pytest.raises(UserError, match=r"environment OldGym-v0: step.*0\.26"):
        train(tiny(tmp_path / "run", dataset=write("own/old-v0", spec)))
    assert not (tmp_path / "run" / "config.json").exists()


def _episodes(actions: Callable[[int], Any]) -> list[dict[str, Any]]:
    seen = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
    return [{"observations": seen, "actions": actions(12), "rewards": np.ones(12)}] * 4


@pytest.mark.parametrize(
    ("space", "actions"),
    [
        (spaces.Discrete(4), lambda steps: np.arange(steps) % 2),  # 2 and 3 were never chosen
        (spaces.Discrete(3, start=1), lambda steps: 1 + np.arange(steps) % 3),
        (spaces.Box(-2, 2, (1,), np.float32), lambda steps: np.linspace(-1, 1, steps)),
    ],
)
def test_the_action_space_is_the_environments_where_arrays_do_not_tell_it(
    space: spaces.Space[Any], actions: Callable[[int], Any]
) -> None:
    class Own(gymnasium.Env[Any, Any]):
        observation_space = SEEN
        action_space = space

        def reset(self, **_: Any) -> tuple[Any, dict[str, Any]]:
            self.steps = 0
            return np.zeros(3, np.float32), {}

        def step(self, action: Any) -> tuple[Any, float, bool, bool, dict[str, Any]]:
            assert space.contains(action), action
            self.steps += 1
            return np.zeros(3, np.float32), 1.0, self.steps == 5, False, {}

    data = TrajectoryDataset.from_episodes(_episodes(actions))
    small: dict[str, Any] = {"updates": 2, "episodes": 2, "width": 8, "layers": 1}
    run = train(data, env=Own, **small)
    assert run.agent.spec.action_space == space
    assert run.scores[0].score_mean == 5
    agent = run.agent  # made for what the environment takes
    assert train(data, agent, env=Own(), updates=2, episodes=2).agent is agent


def test_actions_that_the_environment_does_not_take_are_refused() -> None:
    data = TrajectoryDataset.from_episodes(_episodes(lambda steps: np.arange(steps) % 5))

    class Own(gymnasium.Env[Any, Any]):
        observation_space = SEEN
        action_space = spaces.Discrete(3)

    with pytest.raises(UserError, match=r"data: .*actions: integers from 0 to 2 expected"):
        train(data, env=Own, updates=2)

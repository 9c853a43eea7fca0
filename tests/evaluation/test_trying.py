"""One step before training: what an environment must give, and how a mistake is named."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from evaluation_cases import agent_for
from gymnasium import spaces

from aaren_rl.agents import Agent
from aaren_rl.data import flat_size
from aaren_rl.envs.check import check_environment
from aaren_rl.errors import UserError
from aaren_rl.evaluation import rollout, try_environment


class Good(gym.Env[Any, Any]):
    observation_space: Any = spaces.Box(-1, 1, (4,), np.float32)
    action_space: Any = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return np.zeros(4, np.float32), {}

    def step(self, action: Any) -> Any:
        assert self.action_space.contains(action)
        self.t += 1
        return np.zeros(4, np.float32), 1.0, self.t == 3, False, {}


@pytest.fixture(scope="module")
def agent() -> Agent:
    return agent_for("CartPole-v1", timestep_embedding="none")


def with_step(*result: Any) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: type("Odd", (Good,), {"step": lambda self, action: result})()


def with_reset(reset: Callable[..., Any]) -> Callable[[], gym.Env[Any, Any]]:
    return lambda: type("Odd", (Good,), {"reset": reset})()


SEEN = np.zeros(4, np.float32)


@pytest.mark.parametrize("reward", [1, 1.0, np.float32(1), np.array(1.0), True])
def test_what_is_good_enough(agent: Agent, reward: Any) -> None:
    agent.train()
    for env in (Good, Good(), with_step(SEEN, reward, np.array(False), False, {}), "CartPole-v1"):
        try_environment(env, agent)
    assert agent.training
    vector = gym.vector.SyncVectorEnv([Good])
    try_environment(vector, agent)
    assert not vector.closed


@pytest.mark.parametrize(
    ("env", "said"),
    [
        (with_reset(lambda self: (SEEN, {})), r"reset failed: TypeError: .*reset\(seed=.*0\.26"),
        (with_reset(lambda self, **_: SEEN), r"reset\(seed=.*; got one ndarray"),
        (with_reset(lambda self, **_: (np.zeros(3), {})), r"reset: observation does not fit Box"),
        (with_reset(lambda self, **_: ("start", {})), "numbers expected"),
        (with_reset(lambda self, **_: (SEEN + np.nan, {})), "reset: observation holds nan"),
        (with_reset(lambda self, **_: 1 / 0), "reset failed: ZeroDivisionError: division by zero"),
        (with_step(SEEN, 1.0, False, {}), r"step\(action\) must .*0\.26; got 4 values"),
        (with_step(np.zeros((4, 1)), 1.0, False, False, {}), "step: observation does not fit"),
        (with_step(SEEN + np.inf, 1.0, False, False, {}), "step: observation holds inf"),
        (with_step(SEEN, np.nan, False, False, {}), "step: reward nan: a finite number"),
        (with_step(SEEN, None, False, False, {}), "step: reward None"),
        (with_step(SEEN, "1", False, False, {}), "step: reward '1': a finite number"),
        (with_step(SEEN, 1.0, False, False, None), "step: info None: a dictionary"),
        (with_reset(lambda self, **_: (SEEN, None)), "reset: info None: a dictionary"),
        (with_step(SEEN, np.ones(2), False, False, {}), "step: reward .*a finite number"),
        (with_step(SEEN, 1.0, None, False, {}), "step: terminated None: True or False"),
        (with_step(SEEN, 1.0, False, "no", {}), "step: truncated 'no'"),
    ],
)
def test_mistakes_are_named(agent: Agent, env: Any, said: str) -> None:
    with pytest.raises(UserError, match=said) as caught:
        try_environment(env, agent)
    assert "\n" not in str(caught.value)


def test_an_environment_of_another_kind(agent: Agent) -> None:
    with pytest.raises(UserError, match=r"observations: .* 3 values"):
        try_environment("Pendulum-v1", agent)
    other = type("Other", (Good,), {"action_space": spaces.Discrete(2, start=1)})
    with pytest.raises(UserError, match=r"actions: .*start=1"):
        try_environment(other, agent)
    short = agent_for("CartPole-v1", max_episode_length=499)
    with pytest.raises(UserError, match="an episode of CartPole-v1 has 500 steps"):
        try_environment("CartPole-v1", short)


PARTS = spaces.Dict(
    {
        "goal": spaces.Box(-1, 1, (2,), np.float64),
        "place": spaces.Tuple((spaces.Discrete(3), spaces.Box(0, 1, (1, 2), np.float32))),
    }
)


class Leaving(Good):
    """Ends the process in its second episode's first step, as simulators without a licence do."""

    def step(self, action: Any) -> Any:
        raise SystemExit("no licence")


class Unready(Good):
    def __init__(self) -> None:
        raise SystemExit("no licence")


class Spaceless(Good):
    observation_space = None


class Stuck(Good):
    def close(self) -> None:
        raise RuntimeError("the window is gone")


class Scaled(Good):
    observation_space = spaces.Box(0, 1, (20, 20, 3), np.float32)


def test_environments_that_end_the_process_or_have_no_spaces(agent: Agent) -> None:
    for env, said in (
        (Leaving, "step failed: SystemExit: no licence"),
        (Unready, "cannot be made: no licence"),
        (Spaceless, "observation_space None: a space of Gymnasium expected"),
    ):
        with pytest.raises(UserError, match=said):
            try_environment(env, agent)
    with pytest.raises(UserError, match="SystemExit: no licence"):
        list(rollout(agent, Leaving, episodes=1))
    with pytest.warns(UserWarning, match="its close failed: the window is gone"):
        try_environment(Stuck, agent)


def test_frames_of_another_scale() -> None:
    """A policy for pixels of 0 to 255 acts on frames of 0 to 1 as on black ones."""
    frames = spaces.Box(0, 255, (20, 20, 3), np.uint8)
    with pytest.raises(UserError, match="at most 1, the data's images are uint8, 0 to 255"):
        check_environment(Scaled(), frames, Good.action_space)


class Typed(Good):
    """Shows one value in every step, in a space of the test's."""

    def __init__(self, space: Any, value: Any) -> None:
        self.observation_space, self.value = space, value

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return self.value, {}

    def step(self, action: Any) -> Any:
        return self.value, *super().step(action)[1:]


def box(kind: Any) -> spaces.Box:
    return spaces.Box(0, 9, (4,), kind)


@pytest.mark.parametrize(
    ("space", "value", "said"),
    [
        (box(np.int64), [0.5, 1, 2, 3], "float64 .* came, int64 is declared"),
        (box(np.int64), SEEN, "float32 came, int64 is declared"),
        (box(np.uint8), SEEN.astype(np.int64), "int64 came, uint8 is declared"),
        (box(np.int32), np.full(4, 2**40), "int64 numbers such as 1099511627776 came, int32"),
        (spaces.Discrete(4), 2.0, "float64 came, int64 is declared"),
        (spaces.Dict({"a": box(np.int64)}), {"a": SEEN}, "float32 came, int64 is declared"),
    ],
)
def test_numbers_of_another_kind_than_declared(space: Any, value: Any, said: str) -> None:
    flat = spaces.Box(-np.inf, np.inf, (4,))
    agent = agent_for("CartPole-v1", timestep_embedding="none", observation_space=flat)
    with pytest.raises(UserError, match=f"reset: observation does not fit .*{said}"):
        try_environment(Typed(space, value), agent)


def test_numbers_outside_the_bounds_are_warned_of_once(agent: Agent) -> None:
    with pytest.warns(UserWarning, match="observation holds 17, outside of Box") as caught:
        try_environment(Typed(box(np.float32), [0, 17, 0, 0]), agent)
    assert len(caught) == 1


class InParts(Good):
    observation_space = PARTS

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        PARTS.seed(seed)
        return PARTS.sample(), {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return PARTS.sample(), 1.0, self.t == 3, False, {}


class Choice(InParts):
    observation_space = spaces.Discrete(7)  # type: ignore[assignment]

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.t = 0
        return 3, {}

    def step(self, action: Any) -> Any:
        self.t += 1
        return 5, 1.0, self.t == 3, False, {}


@pytest.mark.parametrize("kind", [InParts, Choice])
def test_observations_in_parts_are_flattened(kind: Any) -> None:
    name = f"aaren-rl-tests/{kind.__name__}-v0"
    if name not in gym.registry:
        gym.register(name, kind, max_episode_steps=9)
    flat = spaces.Box(-np.inf, np.inf, (flat_size(kind.observation_space),))  # earlier agents'
    assert flat.shape == (7,)
    agent = agent_for("CartPole-v1", timestep_embedding="none", observation_space=flat)
    seen: list[np.ndarray] = []
    policy = agent.policy

    def watched(*how: Any) -> Any:
        made = policy(*how)
        act = made.act

        def see(observations: Any, *rest: Any) -> Any:
            seen.append(observations)
            return act(observations, *rest)

        made.act = see  # type: ignore[method-assign]
        return made

    try_environment(name, agent)
    played = rollout(agent, name, episodes=3, num_envs=2, make_policy=watched)
    assert played.lengths.tolist() == [3, 3, 3]
    first, _ = kind().reset(seed=0)
    wanted = spaces.flatten(kind.observation_space, first)  # the policy makes it float32
    np.testing.assert_allclose(seen[0][0], wanted, rtol=1e-15)

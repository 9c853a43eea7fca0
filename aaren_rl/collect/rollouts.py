"""Episodes of a policy in an environment: who acts, and the loop that records."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from aaren_rl.data.trajectory import Trajectory
from aaren_rl.envs.make import make_vector_env

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

BATCH = 16  # environments that step together
Actor = Callable[[NDArray[Any]], NDArray[Any]]
"""Gives actions `[num_envs, ...]` for observations `[num_envs, ...]`."""


def actor_of(
    policy: BasePolicy, seed: int, random_share: float = 0.0, *, greedy: bool = False
) -> Actor:
    """A policy's actions, drawn by torch's global generator, which is seeded here.

    Args:
        policy: of SAC, PPO or DQN; DQN's has greedy actions only.
        seed: of all draws.
        random_share: share of the actions that are uniformly random instead (Discrete actions
            only), as DQN explores; none when greedy.
        greedy: take the most likely actions.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        actions = np.asarray(policy.predict(observations, deterministic=greedy)[0])
        if random_share and not greedy:
            assert isinstance(policy.action_space, spaces.Discrete)
            uniform = generator.integers(policy.action_space.n, size=len(actions))
            actions = np.where(generator.random(len(actions)) < random_share, uniform, actions)
        return actions

    return act


def random_actor(action_space: spaces.Space[Any], seed: int) -> Actor:
    """Uniform actions."""
    own = copy.deepcopy(action_space)  # seeding must not touch the learner's space
    own.seed(seed)
    return lambda observations: np.stack([own.sample() for _ in observations])


def play(
    actor: Actor, environment: EnvSpec | str, *, seed: int, episodes: int | None = None
) -> Iterator[Trajectory]:
    """Whole episodes in the order of their seeds: `seed`, `seed + 1`, ...; `None`: without end.

    Several environments step together. A finished episode waits until all before it are given
    out: in the order in which episodes end, short ones would come first.
    """
    size = BATCH if episodes is None else min(BATCH, episodes)
    numbers = list(range(size))  # of the episode in each environment
    rows: list[list[tuple[Any, Any, float]]] = [[] for _ in numbers]
    finished: dict[int, Trajectory] = {}
    following = 0
    with contextlib.closing(make_vector_env(environment, size)) as vector:
        observations = _restart(vector, [seed + n for n in numbers], np.ones(size, bool))
        while following != episodes:
            actions = actor(observations)
            after, rewards, terminations, truncations, _ = vector.step(actions)
            after = np.array(after)
            for index in range(size):
                rows[index].append((observations[index], actions[index], float(rewards[index])))
            dones = np.asarray(terminations | truncations)
            for index in np.flatnonzero(dones).tolist():
                ended = _trajectory(rows[index], after[index], bool(terminations[index]))
                finished[numbers[index]] = ended
                numbers[index], rows[index] = max(numbers) + 1, []
            while following in finished and following != episodes:
                yield finished.pop(following)
                following += 1
            # All step together, so environments beyond the last episode play on, unread.
            seeds = [seed + n for n in numbers]
            observations = _restart(vector, seeds, dones) if dones.any() else after


def _restart(
    vector: VectorEnv[Any, Any, Any], seeds: list[int], mask: NDArray[np.bool_]
) -> NDArray[Any]:
    """Reset the environments where `mask` is True; a copy of all observations."""
    observations, _ = vector.reset(seed=seeds, options={"reset_mask": mask})  # type: ignore[arg-type]
    return np.array(observations)


def _trajectory(
    rows: list[tuple[Any, Any, float]], last: NDArray[Any], terminated: bool
) -> Trajectory:
    seen, taken, earned = zip(*rows, strict=True)
    return Trajectory(
        observations=np.stack([*seen, last]),
        actions=np.stack(taken),
        rewards=np.array(earned),
        terminated=terminated,
        truncated=not terminated,
    )


def counted(episodes: Iterable[Trajectory], title: str) -> Iterator[Trajectory]:
    """The same episodes; says at their end how many there were."""
    steps = number = 0
    for episode in episodes:
        yield episode
        steps, number = steps + len(episode.rewards), number + 1
    say(f"{title}: {steps} steps, {number} episodes")


def say(line: str) -> None:
    """Tell the user how far the collection is, on standard error."""
    print(line, file=sys.stderr, flush=True)


def first_steps(episodes: Iterator[Trajectory], steps: int) -> Iterator[Trajectory]:
    """Episodes with `steps` steps together; the last one is cut there and so truncated."""
    left = steps
    for episode in episodes:
        length = len(episode.rewards)
        if length > left:
            episode = Trajectory(
                observations=episode.observations[: left + 1],
                actions=episode.actions[:left],
                rewards=episode.rewards[:left],
                terminated=False,
                truncated=True,
            )
        yield episode
        left -= length
        if left <= 0:
            return

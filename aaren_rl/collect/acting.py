"""Who acts when data are written, and the episodes that come of it."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv
from numpy.typing import NDArray

from aaren_rl.data.trajectory import Trajectory
from aaren_rl.envs.vector import make_vector_env

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

BATCH = 16  # environments that step together
Actor = Callable[[NDArray[Any]], NDArray[Any]]
"""Gives actions `[num_envs, ...]` for observations `[num_envs, ...]`."""


def greedy_actor(policy: BasePolicy) -> Actor:
    """The policy's most likely actions."""
    return lambda observations: np.asarray(policy.predict(observations, deterministic=True)[0])


def stochastic_actor(policy: BasePolicy, seed: int, random_share: float = 0.0) -> Actor:
    """Actions drawn from the policy, by torch's global generator, which is seeded here.

    Args:
        policy: of SAC or PPO; DQN's has nothing to draw.
        seed: of all draws.
        random_share: actions that are uniformly random instead (Discrete ones), as DQN explores.
    """
    torch.manual_seed(seed)
    generator = np.random.default_rng(seed)

    def act(observations: NDArray[Any]) -> NDArray[Any]:
        actions = np.asarray(policy.predict(observations, deterministic=False)[0])
        if random_share:
            assert isinstance(policy.action_space, spaces.Discrete)
            uniform = generator.integers(policy.action_space.n, size=len(actions))
            actions = np.where(generator.random(len(actions)) < random_share, uniform, actions)
        return actions

    return act


def random_actor(action_space: spaces.Space[Any], seed: int) -> Actor:
    """Uniform actions."""
    own = copy.deepcopy(action_space)  # the learner draws from the other one
    own.seed(seed)
    return lambda observations: np.stack([own.sample() for _ in observations])


def play(
    actor: Actor, environment: EnvSpec | str, *, seed: int, episodes: int | None = None
) -> Iterator[Trajectory]:
    """Whole episodes in the order of their seeds: `seed`, `seed + 1`, ...; `None`: without end.

    Several environments step together. An episode waits until all before it are through: in the
    order in which they end, the short ones would come first.
    """
    size = BATCH if episodes is None else min(BATCH, episodes)
    vector = make_vector_env(environment, size)
    try:
        waiting: dict[int, Trajectory] = {}
        following = 0
        for episode, trajectory in _finished(actor, vector, seed, episodes):
            waiting[episode] = trajectory
            while following in waiting:
                yield waiting.pop(following)
                following += 1
                if following == episodes:
                    return
    finally:
        vector.close()


def _finished(
    actor: Actor, vector: VectorEnv[Any, Any, Any], seed: int, episodes: int | None
) -> Iterator[tuple[int, Trajectory]]:
    """(Number of the episode, episode) as they end."""
    size = vector.num_envs
    running = list(range(size))
    handed_out = size
    observations = _restart(vector, [seed + number for number in running], np.ones(size, bool))
    rows: list[list[tuple[Any, Any, float]]] = [[] for _ in running]
    while True:
        actions = actor(observations)
        after, rewards, terminations, truncations, _ = vector.step(actions)
        after = np.array(after)
        for index in range(size):
            rows[index].append((observations[index], actions[index], float(rewards[index])))
        dones = np.asarray(terminations | truncations)
        for index in np.flatnonzero(dones).tolist():
            terminated = bool(terminations[index])
            yield running[index], _trajectory(rows[index], after[index], terminated)
            running[index], rows[index] = handed_out, []
            handed_out += 1
        # environments beyond the last episode play on, unread: all step together
        seeds = [seed + number for number in running]
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


def first_steps(episodes: Iterator[Trajectory], steps: int) -> Iterator[Trajectory]:
    """Episodes with `steps` steps together; the last one is cut there and so truncated."""
    left = steps
    for episode in episodes:
        length = len(episode.rewards)
        if length <= left:
            yield episode
        else:
            yield Trajectory(
                observations=episode.observations[: left + 1],
                actions=episode.actions[:left],
                rewards=episode.rewards[:left],
                terminated=False,
                truncated=True,
            )
        left -= length
        if left <= 0:
            return

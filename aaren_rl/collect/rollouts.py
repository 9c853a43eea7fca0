"""Episodes of a policy in an environment."""

from __future__ import annotations

import contextlib
import copy
import sys
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from gymnasium import spaces
from gymnasium.envs.registration import EnvSpec
from numpy.typing import NDArray

from aaren_rl.data.episode import Trajectory
from aaren_rl.envs import make_vector_env, missing_limit, recorded_episodes
from aaren_rl.evaluation.rollouts import LONGEST_EPISODE

if TYPE_CHECKING:
    from stable_baselines3.common.policies import BasePolicy

BATCH = 16  # environments that step together
Act = Callable[[Any], NDArray[Any]]
"""Gives actions `[num_envs, ...]` for observations `[num_envs, ...]`."""


def actor_of(
    policy: BasePolicy, seed: int, random_share: float = 0.0, *, greedy: bool = False
) -> Act:
    """A policy's actions, drawn by torch's global generator, which is seeded here."""
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


def random_actor(action_space: spaces.Space[Any], seed: int) -> Act:
    """Uniform actions."""
    own = copy.deepcopy(action_space)  # seeding must not touch the learner's space
    own.seed(seed)
    return lambda observations: np.stack([own.sample() for _ in observations])


def play(
    actor: Act, environment: EnvSpec | str, *, seed: int, episodes: int | None = None
) -> Iterator[Trajectory]:
    """Whole episodes in the order of their seeds: `seed`, `seed + 1`, ...; `None`: without end.

    In an environment that names no time limit they are cut after `LONGEST_EPISODE` steps.
    """
    size = BATCH if episodes is None else min(BATCH, episodes)
    with contextlib.closing(make_vector_env(environment, size)) as vector:
        limit = missing_limit(vector, LONGEST_EPISODE)
        acting = SimpleNamespace(act=lambda observations, rewards, starts: actor(observations))
        yield from recorded_episodes(acting, vector, episodes=episodes, seed=seed, limit=limit)


def play_in_pixels(
    actor: Act, environment: EnvSpec, *, seed: int, episodes: int | None = None
) -> Iterator[Trajectory]:
    """The episodes of `play`, recorded as frames of `aaren/Pixels-v0`; the actor sees numbers."""
    both = replace(environment, kwargs={**environment.kwargs, "numbers": True})
    seen = play(lambda shown: actor(shown["numbers"]), both, seed=seed, episodes=episodes)
    for episode in seen:
        yield replace(episode, observations=episode.observations["pixels"])


def counted(episodes: Iterable[Trajectory], title: str) -> Iterator[Trajectory]:
    """The same episodes; prints their number at the end."""
    steps = number = 0
    for episode in episodes:
        yield episode
        steps, number = steps + len(episode.rewards), number + 1
    say(f"{title}: {steps} steps, {number} episodes")


def say(line: str) -> None:
    """Print progress on standard error."""
    print(line, file=sys.stderr, flush=True)


def first_steps(episodes: Iterator[Trajectory], steps: int) -> Iterator[Trajectory]:
    """Episodes with `steps` steps together; the last one is cut there and so truncated."""
    left = steps
    for episode in episodes:
        length = len(episode.rewards)
        if length > left:
            observations, actions = episode.observations[: left + 1], episode.actions[:left]
            episode = Trajectory(observations, actions, episode.rewards[:left], False, True)
        yield episode
        left -= length
        if left <= 0:
            return

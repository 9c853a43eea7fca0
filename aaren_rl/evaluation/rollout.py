"""Episodes in Gymnasium: an agent acting in several environments at once."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from aaren_rl.agents import Agent, Mode, Policy
from aaren_rl.envs import check_environment, make_vector_env

PolicyMaker = Callable[[int, float | None, Mode | None], Policy]
"""Makes a policy for a number of environments, a target return and a mode, as `Agent.policy`."""
LARGEST_BATCH = 16  # environments that step together unless the caller says otherwise


@dataclass(frozen=True)
class Episodes:
    """What came of acting in `episodes` episodes.

    Attributes:
        returns: float64 `[episodes]`, undiscounted.
        lengths: int64 `[episodes]`, steps.
        policy_seconds: time spent choosing actions.
        environment_seconds: time spent in the environments.
        vector_steps: how often a batch of actions was chosen.
    """

    returns: np.ndarray
    lengths: np.ndarray
    policy_seconds: float
    environment_seconds: float
    vector_steps: int


def rollout(
    agent: Agent,
    environment: EnvSpec | str,
    *,
    episodes: int,
    target_return: float | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    asynchronous: bool = False,
    on_step: Callable[[], None] | None = None,
    make_policy: PolicyMaker | None = None,
) -> Episodes:
    """Act for a number of whole episodes; episode i is seeded with `seed + i`.

    Environments that finish take the next episode at once; which episodes there are does not
    depend on which end first, so that short ones are not counted more often.

    Args:
        agent: who acts.
        environment: where.
        episodes: how many.
        target_return: the return to ask for; the agent's own target when `None`.
        mode: see `Agent.policy`.
        seed: of the first episode.
        num_envs: environments that step together.
        asynchronous: each environment in a process of its own.
        on_step: called after each step; may raise to stop.
        make_policy: makes what acts in the agent's place; `agent.policy` when `None`.

    Raises:
        UserError: when the environment cannot be made or does not fit the agent.
    """
    size = min(episodes, num_envs or LARGEST_BATCH)
    vector = make_vector_env(environment, size, asynchronous=asynchronous)
    try:
        check_environment(vector, agent.spec.observation_space, agent.spec.action_space)
        check_length(agent, vector)
        policy = (make_policy or agent.policy)(size, target_return, mode)
        return _run(policy, vector, list(range(seed, seed + episodes)), on_step)
    finally:
        vector.close()


class _TimedEnough(Exception):
    """Ends the loop of `rollout` once enough steps have been timed."""


def seconds_per_step(
    agent: Agent, environment: EnvSpec | str, *, steps: int = 20, **how: Any
) -> float:
    """Time of one step of acting, all environments together, in seconds.

    Args:
        agent: who acts. It is left in evaluation mode.
        environment: where.
        steps: steps that are timed, after a first one that is not.
        how: the other arguments of `rollout`, but `on_step`.

    Raises:
        UserError: as `rollout`.
    """
    ends: list[float] = []

    def on_step() -> None:
        ends.append(time.perf_counter())
        if len(ends) > steps:
            raise _TimedEnough

    with contextlib.suppress(_TimedEnough):
        rollout(agent, environment, on_step=on_step, **how)
    return (ends[-1] - ends[0]) / max(1, len(ends) - 1)


def check_length(agent: Agent, vector: VectorEnv) -> None:
    """Raise `UserError` when the environment's time limit is beyond the agent's horizon."""
    spec = vector.spec
    if spec is not None and spec.max_episode_steps is not None:
        agent.check_horizon(spec.max_episode_steps, f"an episode of {spec.id}")


def _run(
    policy: Policy, vector: VectorEnv, seeds: Sequence[int], on_step: Callable[[], None] | None
) -> Episodes:
    """Hand the episodes (their seeds) to the environments until all are done."""
    size = vector.num_envs
    returns, lengths = np.zeros(len(seeds)), np.zeros(len(seeds), dtype=np.int64)
    running = np.arange(size)  # the episode in each environment; -1 for none
    waiting = size  # the next episode to hand out
    observations = _restart(vector, list(seeds[:size]), np.ones(size, dtype=bool))
    rewards: np.ndarray | None = None
    ended = np.zeros(size, dtype=bool)
    policy_seconds = environment_seconds = 0.0
    steps = 0
    while (running >= 0).any():
        before = time.perf_counter()
        actions = policy.act(observations, rewards, ended)
        between = time.perf_counter()
        observations, rewards, terminations, truncations, _ = vector.step(actions)
        assert rewards is not None
        live = running >= 0
        returns[running[live]] += rewards[live]
        lengths[running[live]] += 1
        ended = np.asarray(terminations | truncations)
        if ended.any():
            reseed: list[int | None] = [None] * size
            for index in np.flatnonzero(ended):
                running[index] = waiting if waiting < len(seeds) else -1
                # An environment without an episode runs on, uncounted, since all step together.
                reseed[index] = seeds[0] if running[index] < 0 else seeds[waiting]
                waiting += int(running[index] >= 0)
            observations = _restart(vector, reseed, ended)
        policy_seconds += between - before
        environment_seconds += time.perf_counter() - between
        steps += 1
        if on_step is not None:
            on_step()
    return Episodes(returns, lengths, policy_seconds, environment_seconds, steps)


def _restart(vector: VectorEnv, seeds: list[int | None], mask: np.ndarray) -> np.ndarray:
    """Reset the environments where `mask` is true, each with its own seed; all observations."""
    # Gymnasium's signature says one seed, its documentation and code take a list.
    observations, _ = vector.reset(seed=seeds, options={"reset_mask": mask})  # type: ignore[arg-type]
    return np.asarray(observations)

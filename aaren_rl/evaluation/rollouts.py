"""Episodes of an agent in its environment."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Generator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from gymnasium import spaces
from gymnasium.vector import AutoresetMode, VectorEnv

from aaren_rl.agents import Agent, Mode, Policy
from aaren_rl.data.spaces import flatten_batch
from aaren_rl.envs.check import check_environment, single_spaces
from aaren_rl.envs.limits import missing_limit, time_limit
from aaren_rl.envs.loop import Actor, Step, autoreset_mode, play
from aaren_rl.envs.make import Env, EnvLike, close_env, describe, make_vector_env
from aaren_rl.errors import UserError

PolicyMaker = Callable[[int, float | None, Mode | None], Policy]
"""Makes a policy for a number of environments, a target return and a mode, as `Agent.policy`."""
LARGEST_BATCH = 16  # environments that step together unless the caller says otherwise
LONGEST_EPISODE = 1000
"""Steps after which episodes are cut in an environment that names no time limit, unless the data
say another number."""
GIVE_UP = 100_000
"""Steps after which that is an error in environments that restart by themselves."""


@dataclass(frozen=True)
class Episodes:
    """The episodes that an agent has played, in the order of their seeds.

    Attributes:
        returns: float64 `[episodes]`, undiscounted.
        lengths: int64 `[episodes]`, steps.
        policy_seconds: time spent choosing actions.
        environment_seconds: time spent in the environments.
        vector_steps: how often a batch of actions was chosen.
        successes: bool `[episodes]`, whether the environment reported a success at any step, see
            `aaren_rl.envs.loop.Step`. Where it reports none, for agents with the condition `goal`
            whether a reward was 1, for others `None`.
    """

    returns: np.ndarray
    lengths: np.ndarray
    policy_seconds: float
    environment_seconds: float
    vector_steps: int
    successes: np.ndarray | None = None


def rollout(
    agent: Agent,
    env: EnvLike,
    *,
    episodes: int,
    target_return: float | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    asynchronous: bool = False,
    on_step: Callable[[], None] | None = None,
    make_policy: PolicyMaker | None = None,
    recorder: Callable[[Step], None] | None = None,
    deterministic: bool = True,
    temperature: float = 1.0,
) -> Episodes:
    """Act for a number of whole episodes; episode i is seeded with `seed + i`.

    See `aaren_rl.envs.play`. Where the environment has no time limit, episodes are cut with a
    warning, see `limit_of`.

    Args:
        agent: the agent that acts.
        env: where; see `aaren_rl.envs.make_vector_env`.
        episodes: how many.
        target_return: the return to ask for; the agent's own target when `None`.
        mode: see `Agent.policy`.
        seed: of the first episode.
        num_envs: environments that step together.
        asynchronous: each environment in a process of its own.
        on_step: called after each step; may raise to stop.
        make_policy: makes what acts in the agent's place; `agent.policy` when `None`.
        recorder: gets every step with its observations, actions and rewards.
        deterministic: see `Agent.policy`; draws of actions are seeded with `seed` too.
        temperature: of the draws.

    Raises:
        UserError: when the environment cannot be made, does not fit the agent or fails, or its
            rewards are not finite.
    """
    returns, lengths = np.zeros(episodes), np.zeros(episodes, dtype=np.int64)
    said, rewarded = np.zeros(episodes, dtype=bool), np.zeros(episodes, dtype=bool)
    policy_seconds = environment_seconds = 0.0
    steps, says = 0, False
    how: dict[str, Any] = {"target_return": target_return, "mode": mode, "seed": seed}
    how |= {"num_envs": num_envs, "asynchronous": asynchronous, "make_policy": make_policy}
    if not deterministic:
        how["make_policy"] = drawing(agent, temperature, seed, make_policy)
    with closing(_steps(agent, env, episodes=episodes, **how)) as played:
        for step in played:
            live = step.episodes >= 0
            returns[step.episodes[live]] += step.rewards[live]
            lengths[step.episodes[live]] += 1
            rewarded[step.episodes[live]] |= step.rewards[live] == 1
            if step.successes is not None:
                said[step.episodes[live]] |= step.successes[live]
                says = True
            policy_seconds += step.policy_seconds
            environment_seconds += step.environment_seconds
            steps += 1
            if recorder is not None:
                recorder(step)
            if on_step is not None:
                on_step()
    successes = said if says else rewarded if agent.config.condition == "goal" else None
    return Episodes(returns, lengths, policy_seconds, environment_seconds, steps, successes)


def drawing(
    agent: Agent, temperature: float, seed: int, make_policy: PolicyMaker | None = None
) -> PolicyMaker:
    """Makes policies that draw their actions; see `Agent.policy`.

    Raises:
        UserError: the agent predicts no distribution, a temperature that is not positive, or
            a `make_policy`.
    """
    if make_policy is not None:
        raise UserError("actions are drawn by the agent itself alone: leave make_policy out")
    agent.check_draws(temperature)
    return partial(agent.policy, deterministic=False, temperature=temperature, seed=seed)


def seconds_per_step(agent: Agent, env: EnvLike, *, steps: int = 20, **how: Any) -> float:
    """Seconds that one step of acting takes, all environments together.

    Arguments and errors are as `rollout`'s; `steps` steps are timed, after a first one that is not.
    The agent is left in evaluation mode.
    """
    with closing(_steps(agent, env, **how)) as played:
        spent = [s.policy_seconds + s.environment_seconds for s in itertools.islice(played, steps)]
    timed = spent[1:] or spent
    return sum(timed) / len(timed)


def _steps(
    agent: Agent,
    env: EnvLike,
    *,
    episodes: int,
    target_return: float | None = None,
    mode: Mode | None = None,
    seed: int = 0,
    num_envs: int | None = None,
    asynchronous: bool = False,
    make_policy: PolicyMaker | None = None,
) -> Generator[Step, None, None]:
    """The steps of `rollout`; closes the environments at the end."""
    size = min(episodes, num_envs or LARGEST_BATCH)
    exact = bool(agent.spec.observation_offset)  # float32 would round before it is subtracted
    vector = make_vector_env(env, size, asynchronous=asynchronous, exact=exact)
    try:
        check_environment(vector, agent.spec.observation_space, agent.spec.action_space)
        check_length(agent, vector)
        policy = (make_policy or agent.policy)(vector.num_envs, target_return, mode)
        actor = fitted(policy, vector, agent)
        yield from play(actor, vector, episodes=episodes, seed=seed, limit=limit_of(vector, agent))
    finally:
        close_env(vector)


def limit_of(vector: VectorEnv[Any, Any, Any], agent: Agent) -> int | None:
    """The `limit` that `play` needs: `None` where a `TimeLimit` ends the episodes.

    Otherwise as many steps as the environments name; else as many as the longest episode has that
    the agent learned from, or `LONGEST_EPISODE` where that is not known.
    """
    limit = missing_limit(vector, agent.spec.longest_episode or LONGEST_EPISODE)
    if limit is None or autoreset_mode(vector) is AutoresetMode.DISABLED:
        return limit
    return max(limit, GIVE_UP)


def check_length(agent: Agent, env: Env | VectorEnv[Any, Any, Any]) -> None:
    """Raise `UserError` when the environment's time limit is beyond the agent's horizon."""
    limit = time_limit(env)
    if limit is not None:
        agent.check_horizon(limit, f"an episode of {describe(env)}")


def fitted(policy: Policy, env: Env | VectorEnv[Any, Any, Any], agent: Agent) -> Actor:
    """The policy; one for a flat Box gets observations of another form flattened.

    Data may hold observations that `gymnasium.spaces.flatten` has flattened.
    """
    space, _ = single_spaces(env)
    as_it_is = isinstance(space, spaces.Box) or not agent.spec.observation_layout.is_box
    return policy if as_it_is else _Flattened(policy, space)


class _Flattened:
    """See `fitted`; `space` is that of one environment's observations."""

    def __init__(self, policy: Policy, space: spaces.Space[Any]) -> None:
        self.policy, self.space = policy, space

    def act(
        self, observations: Any, rewards: np.ndarray | None = None, dones: np.ndarray | None = None
    ) -> np.ndarray:
        """See `Policy.act`."""
        flat = flatten_batch(self.space, observations, np.float64)  # the policy makes it float32
        return self.policy.act(flat, rewards, dones)

"""Does an exported step act as PyTorch does? Asked in the real environment."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import VectorEnv

from aaren_rl.acting import Policy
from aaren_rl.agents import DecisionAaren
from aaren_rl.agents.actions import ContinuousActions
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.envs import check_environment, make_vector_env
from aaren_rl.evaluation.rollouts import check_length
from aaren_rl.export.interface import Exportable

TOLERANCE = 1e-5
NUM_ENVS = 4
ROUNDINGS = 4  # of an action in float32 that count as the same


@dataclass(frozen=True)
class Agreement:
    """How far two policies were apart.

    Attributes:
        steps: steps compared, of each environment.
        episodes: how many episodes began in them, in all environments.
        largest_difference: of an action's components, in units of half the action's range, or,
            where that is not finite, of the data's standard deviation (of the mean, if that is so
            large that float32 does not resolve the deviation to the tolerance); for discrete
            actions the share that differs.
        tolerance: up to which they count as the same.
    """

    steps: int
    episodes: int
    largest_difference: float
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether they count as the same (not for NaN)."""
        return self.largest_difference <= self.tolerance


def measure_agreement(
    agent: Exportable,
    make_policy: Callable[[int, float | None], Policy],
    environment: EnvSpec | str,
    *,
    steps: int,
    seed: int = 0,
) -> Agreement:
    """Let PyTorch act, show the other policy the same observations, and compare all actions.

    The reference goes through the agent's own layers, not through the folded step that is exported.
    Several environments act together; all but the first are cut now and then, each at other times,
    so that episodes end at different steps even where the agent never falls.

    Args:
        agent: acts in PyTorch.
        make_policy: makes the other policy, from a number of environments and a target return.
        environment: where.
        steps: how many, of each environment.
        seed: of the first episode.
    """
    target = None
    if agent.asks_return:
        target = agent.spec.target_returns[0] if agent.spec.target_returns else 0.0
    vector = make_vector_env(environment, NUM_ENVS)
    try:
        check_environment(vector, agent.spec.observation_space, agent.spec.action_space)
        check_length(agent, vector)
        policies = _reference(agent, target), make_policy(NUM_ENVS, target)
        return _compare(agent, policies, vector, steps, seed)
    finally:
        vector.close()


def _compare(
    agent: Exportable, policies: tuple[Policy, Policy], vector: VectorEnv, steps: int, seed: int
) -> Agreement:
    """The first policy acts, the second is shown the same."""
    cut_every = np.array([steps + 1, *(max(1, steps * k // 8) for k in (3, 2, 1))])
    longest = _longest(agent)
    seeds = list(range(seed, seed + NUM_ENVS))
    observations, _ = vector.reset(seed=seeds)  # type: ignore[arg-type]
    rewards: np.ndarray | None = None
    ended, ages = np.ones(NUM_ENVS, dtype=bool), np.zeros(NUM_ENVS, dtype=np.int64)
    worst, episodes = 0.0, NUM_ENVS
    for step in range(1, steps + 1):
        actions, others = (policy.act(observations, rewards, ended) for policy in policies)
        worst = float(np.maximum(worst, _difference(agent, actions, others)))  # keeps NaN
        observations, rewards, terminations, truncations, _ = vector.step(actions)
        ages += 1
        ended = np.asarray(terminations | truncations)
        ended = ended | (step % cut_every == 0) | (ages >= longest)
        if ended.any():
            ages[ended], episodes = 0, episodes + int(ended.sum())
            seeds = [number + NUM_ENVS for number in seeds]
            again = {"reset_mask": ended}
            observations, _ = vector.reset(seed=seeds, options=again)  # type: ignore[arg-type]
    return Agreement(steps, episodes, worst)


def _longest(agent: Exportable) -> int:
    learned = isinstance(agent, DecisionAaren) and agent.config.timestep_embedding == "learned"
    return agent.config.max_episode_length if learned else int(np.iinfo(np.int64).max)


def _reference(agent: Exportable, target: float | None) -> Policy:
    if isinstance(agent, DecisionAaren):
        agent.eval()
        return SteppingPolicy(agent, agent.targets_for(target, NUM_ENVS))
    return agent.policy(NUM_ENVS)


def _difference(agent: Exportable, actions: np.ndarray, others: np.ndarray) -> float:
    if agent.spec.discrete:
        return float((actions != others).mean())
    codec = agent.actions
    assert isinstance(codec, ContinuousActions)
    apart = np.abs(actions.astype(np.float64) - others).reshape(len(actions), -1)
    unit = codec.reach.cpu().numpy().astype(np.float64)
    if not codec.bounded:
        resolution = ROUNDINGS * np.finfo(np.float32).eps / TOLERANCE
        unit = np.maximum(unit, resolution * np.abs(codec.middle.cpu().numpy()))
    return float((apart / unit).max())

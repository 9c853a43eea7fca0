"""Comparison of an exported step's actions with PyTorch's, in the real environment if possible."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np
from gymnasium.vector.utils import batch_space

from aaren_rl.acting import Policy
from aaren_rl.agents import Agent
from aaren_rl.agents.policy import SteppingPolicy
from aaren_rl.evaluation.rollouts import rollout
from aaren_rl.layers import ChoiceActions, JoinedActions

TOLERANCE = 1e-5
NUM_ENVS = 4
ROUNDINGS = 4  # roundings of an action in float32 that count as the same


@dataclass(frozen=True)
class Agreement:
    """The largest difference between two policies' actions.

    Attributes:
        steps: steps compared, of each environment.
        episodes: episodes started in them, in all environments.
        largest_difference: of an action's components, in units of half the action's range, or,
            where that is not finite, of the data's standard deviation (of the mean, if that is so
            large that float32 does not resolve the deviation to the tolerance); for discrete
            actions the share that differs.
        in_environment: in the agent's environment; else on observations drawn from the data's
            statistics.
        tolerance: up to which they count as the same.
    """

    steps: int
    episodes: int
    largest_difference: float
    in_environment: bool = True
    tolerance: float = TOLERANCE

    @property
    def agrees(self) -> bool:
        """Whether they count as the same (not for NaN)."""
        return self.largest_difference <= self.tolerance


def measure_agreement(
    agent: Agent,
    make_policy: Callable[[int, float | None], Policy],
    environment: Any,
    *,
    steps: int,
    seed: int = 0,
) -> Agreement:
    """Let PyTorch act, give the other policy the same observations, and compare all actions.

    The reference goes through the agent's own layers, not through a folded step. Several
    environments act together; in all but the first the policies start a new episode now and then,
    each at other times, so that episodes start at different steps even where none ends by itself.

    Args:
        agent: acts in PyTorch.
        make_policy: makes the other policy, from a number of environments and a target return.
        environment: as `rollout` takes it; `None`: random observations with the mean and standard
            deviation of the data.
        steps: steps of each environment.
        seed: of the first episode.

    Raises:
        UserError: when the environment cannot be made or does not fit the agent.
    """
    target = agent.usual_target
    sequence: Any = agent
    reference: Policy = agent.policy(NUM_ENVS, target)
    if agent.has_memory:
        reference = SteppingPolicy(sequence, sequence.targets_for(target, NUM_ENVS))
    compared = _ComparingPolicy(agent, reference, make_policy(NUM_ENVS, target), steps)
    how: dict[str, Any] = {"episodes": NUM_ENVS * steps, "num_envs": NUM_ENVS, "seed": seed}
    with suppress(_EnoughSteps):
        if environment is None:
            _act_on_noise(agent, compared, seed)
        else:
            rollout(agent, environment, make_policy=lambda *_: compared, **how)
    return Agreement(steps, compared.episodes, compared.worst, environment is not None)


class _EnoughSteps(Exception):
    """Ends the rollout once enough steps have been compared."""


class _ComparingPolicy(Policy):
    """Acts as the first policy, and keeps how far the second one's actions were from its."""

    def __init__(self, agent: Agent, reference: Policy, other: Policy, steps: int) -> None:
        self.agent, self.pair, self.steps = agent, (reference, other), steps
        self.taken, self.episodes, self.worst = 0, 0, 0.0
        self._ages = np.zeros(NUM_ENVS, dtype=np.int64)  # steps of the present episodes
        self._longest = agent.horizon or steps + 1
        every = [steps + 1, *(max(1, steps * k // 8) for k in (3, 2, 1))]
        self._every = np.resize(every, NUM_ENVS)  # steps after which an episode starts

    def act(
        self,
        observations: Any,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: Any = None,
    ) -> Any:
        """See `Policy.act`."""
        if self.taken == self.steps:
            raise _EnoughSteps
        starts = (self.taken % self._every == 0) | (self._ages >= self._longest)
        starts = starts if dones is None else starts | dones
        actions, others = (policy.act(observations, rewards, starts) for policy in self.pair)
        self.worst = float(np.maximum(self.worst, _difference(self.agent, actions, others)))
        self._ages = np.where(starts, 1, self._ages + 1)
        self.episodes += int(starts.sum())
        self.taken += 1
        return actions

    def reset(self, mask: np.ndarray | None = None) -> None:
        """Not used: `rollout` passes `dones`."""

    @property
    def state_bytes(self) -> int:
        """The reference's."""
        return self.pair[0].state_bytes


def _act_on_noise(agent: Agent, policy: Policy, seed: int) -> None:
    """Observations and rewards with the data's statistics, until `_EnoughSteps`."""
    rng, layout = np.random.default_rng(seed), agent.spec.observation_layout
    mean, std = agent.observation_mean.cpu().numpy(), agent.observation_std.cpu().numpy()
    batch = batch_space(agent.spec.observation_space, NUM_ENVS)
    batch.seed(seed)
    rewards = None
    while True:
        columns = mean + std * rng.normal(size=(NUM_ENVS, len(mean)))
        if not layout.is_box:  # choices and images have no such statistics
            drawn = layout.flatten(batch.sample())
            numbers = layout.mask(lambda leaf: not leaf.levels and leaf.dtype != "uint8")
            columns = np.where(numbers, columns, drawn)
        policy.act(layout.unflatten(columns), rewards)
        rewards = rng.normal(size=NUM_ENVS) * agent.spec.returns_scale / 1000


def _difference(agent: Agent, actions: Any, others: Any) -> float:
    """See `Agreement.largest_difference`; NaN where an action is."""
    if agent.spec.discrete:
        return float((actions != others).mean())
    layout, head = agent.spec.action_layout, agent.actions
    mine, theirs = (layout.flatten(each, np.float64) for each in (actions, others))
    if not isinstance(head, JoinedActions):
        return _apart(head, mine, theirs)
    worst = 0.0
    for part, columns in zip(head.heads, layout.slices, strict=True):
        worst = np.maximum(worst, _apart(part, mine[:, columns], theirs[:, columns]))
    return float(worst)


def _apart(head: Any, actions: np.ndarray, others: np.ndarray) -> float:
    """`_difference` of one head's columns `[envs, size]`."""
    if isinstance(head, ChoiceActions):
        return float((actions != others).mean())
    apart = np.abs(actions - others)
    if not hasattr(head, "reach"):  # a head from outside, with units of its own
        return float(apart.max())
    unit = head.reach.cpu().numpy().astype(np.float64)
    if not head.bounded:
        resolution = ROUNDINGS * np.finfo(np.float32).eps / TOLERANCE
        unit = np.maximum(unit, resolution * np.abs(head.middle.cpu().numpy()))
    return float((apart / unit).max())

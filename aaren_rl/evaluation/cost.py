"""What acting costs: time per step, and bytes carried from step to step."""

from __future__ import annotations

import time
from dataclasses import dataclass

import numpy as np

from aaren_rl.agents import Agent, Mode


@dataclass(frozen=True)
class ActingCost:
    """Cost of acting in one environment.

    Attributes:
        act_microseconds: median time of one step over the last tenth of the steps.
        state_bytes: bytes carried to the next step, after each step: `[steps]`.
        microseconds: time of each step: `[steps]`.
    """

    act_microseconds: float
    state_bytes: list[int]
    microseconds: list[float]


def acting_cost(
    agent: Agent, observations: np.ndarray, *, mode: Mode | None = None, steps: int = 1000
) -> ActingCost:
    """Measure acting on recorded observations, without an environment.

    Args:
        agent: the agent that acts.
        observations: real ones, `[any number, observation_size]`; repeated as often as needed.
        mode: see `Agent.policy`.
        steps: how many steps, at most the agent's horizon.
    """
    policy = agent.policy(1, agent.usual_target, mode)
    layout = agent.spec.observation_layout
    reward, done = np.zeros(1), np.zeros(1, dtype=bool)
    seconds, sizes = [], []
    for step in range(steps):
        observation = layout.unflatten(observations[step % len(observations)][None])
        start = time.perf_counter()
        policy.act(observation, reward if step else None, done if step else None)
        seconds.append(time.perf_counter() - start)
        sizes.append(policy.state_bytes)
    last = seconds[-max(1, steps // 10) :]
    return ActingCost(float(np.median(last)) * 1e6, sizes, [1e6 * each for each in seconds])

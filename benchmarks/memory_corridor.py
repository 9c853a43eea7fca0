"""Success in the passive T-maze, and what a step costs on the way, for agents of any kind.

Agents that carry a state go through a corridor in long forward passes: the same function of the
same inputs as step by step (tests/benchmarks/test_memory.py compares them), and 100,000 steps of
64 mazes take a minute and not an hour. Agents that recompute a window are stepped.
"""

from __future__ import annotations

import time
from typing import Any

import numpy as np
import torch
from torch import Tensor

from aaren_rl.agents import DecisionAgent, Mode
from aaren_rl.data.sampling import Batch
from aaren_rl.envs.memory.tmaze import MOVE_ON, PASSIVE_TMAZE, VectorPassiveTMaze
from aaren_rl.layers import SequenceState
from benchmarks.memory_agents import share_right

NEAR = 100  # steps before a length whose median time is taken


def maze(length: int | tuple[int, int], noise: float) -> str:
    """The environment's name, options included."""
    steps = str(length) if isinstance(length, int) else f"[{length[0]},{length[1]}]"
    return f"{PASSIVE_TMAZE}?length={steps}&noise={noise}"


def success_by_stepping(
    agent: DecisionAgent, mode: Mode, length: int, mazes: int, noise: float, seed: int
) -> float:
    """Share of mazes whose cue is recalled, acting step by step; maze i is seeded `seed + i`."""
    return share_right(agent, maze(length, noise), mode, mazes, seed)


@torch.inference_mode()
def success_by_stretches(
    agent: DecisionAgent, length: int, mazes: int, noise: float, seed: int, stretch: int = 500
) -> float:
    """As `success_by_stepping` in mode `carry`, `stretch` steps of the corridor at a time."""
    agent.eval()
    env = VectorPassiveTMaze(mazes, length=length, noise=noise, autoreset_mode="Disabled")
    move_on = np.full(mazes, MOVE_ON)
    observations, _ = env.reset(seed=seed)
    state: SequenceState | None = None
    start, junction = 0, length - 1
    while start < junction:
        seen = []
        for _ in range(min(stretch, junction - start)):
            seen.append(observations)
            # In the corridor nothing depends on the action, so this looks ahead and no more.
            observations = env.step(move_on)[0]
        _, state = act_through(agent, np.stack(seen, axis=1), start, state)
        start += len(seen)
    actions, _ = act_through(agent, observations[:, None], junction, state)
    return float(env.step(actions[:, -1])[1].mean())


def act_through(
    agent: DecisionAgent, observations: np.ndarray, start: int, state: SequenceState | None
) -> tuple[np.ndarray, SequenceState]:
    """The actions of consecutive steps whose observations are known and that earn nothing.

    An action depends on those before it, which are guessed: moving on. A pass over all steps tells
    what the agent does after such a past. Where that is not what was guessed it becomes the next
    guess: at least one step more is then right, and nearly always the first guess is.

    Args:
        agent: in evaluation mode.
        observations: `[envs, steps, observation_size]`.
        start: timestep of the first.
        state: what the agent carries from the steps before; `None` at the start.

    Returns:
        Actions `[envs, steps]` and the state after them.
    """
    envs, steps = observations.shape[:2]
    guess = torch.full((envs, steps), MOVE_ON, dtype=torch.int64)
    batch = Batch(
        observations=torch.from_numpy(observations),
        actions=guess,
        returns_to_go=torch.ones(envs, steps, 1),
        timesteps=torch.arange(start, start + steps).expand(envs, steps),
        mask=torch.ones(envs, steps, dtype=torch.bool),
    )
    while True:
        predictions, after = agent.predict_from(batch, state)
        decided: Tensor = agent.actions.decide(predictions)
        if torch.equal(decided, batch.actions):
            return decided.numpy(), after
        batch = batch._replace(actions=decided)


def cost_of_steps(
    agent: DecisionAgent, mode: Mode, lengths: list[int], noise: float
) -> dict[int, dict[str, Any]]:
    """Microseconds a step (the median of the last 100) and bytes of state, by length.

    One environment, one policy that is stepped through the longest corridor.
    """
    policy = agent.policy(1, 1.0, mode)
    env = VectorPassiveTMaze(1, length=max(lengths) + 1, noise=noise, autoreset_mode="Disabled")
    observations, _ = env.reset(seed=0)
    rewards, dones = None, np.ones(1, bool)
    seconds: list[float] = []
    costs = {}
    for step in range(1, max(lengths) + 1):
        before = time.thread_time()
        actions = policy.act(observations, rewards, dones)
        seconds.append(time.thread_time() - before)
        observations, rewards, terminations, _, _ = env.step(actions)
        dones = np.asarray(terminations)
        if step in lengths:
            microseconds = 1e6 * float(np.median(seconds[-NEAR:]))
            costs[step] = {"microseconds": microseconds, "state_bytes": policy.state_bytes}
    return costs

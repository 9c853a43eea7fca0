"""What acting costs by environment step, for TensorBoard: the resource figure of the paper."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from torch.utils.tensorboard import SummaryWriter

from aaren_rl.agents import Mode, load_agent
from aaren_rl.evaluation import acting_cost

STEPS = 1000
LAYOUT = {
    "acting, by environment step": {
        "microseconds a step": ["Multiline", ["acting/microseconds"]],
        "milliseconds so far": ["Multiline", ["acting/cumulated_milliseconds"]],
        "bytes from step to step": ["Multiline", ["acting/state_bytes"]],
    }
}


def write_acting_curves(folder: Path, checkpoint: Path, observations: np.ndarray) -> None:
    """Measure an agent in `carry` and in its default mode; a run `acting-MODE` for each.

    The horizontal axis is the step of the episode, not the update: these are runs of their own.

    Args:
        folder: the agent's folder in the comparison.
        checkpoint: the agent, as saved.
        observations: real ones, `[any number, observation_size]`.
    """
    agent = load_agent(checkpoint)
    if not agent.has_memory:
        return  # it has no past to carry
    steps = STEPS
    if agent.config.timestep_embedding == "learned":
        steps = min(steps, agent.config.max_episode_length)
    modes: list[Mode] = ["carry"]
    if agent.default_mode != "carry":
        modes.append(agent.default_mode)
    for mode in modes:
        cost = acting_cost(agent, observations, mode=mode, steps=steps)
        _write(folder / f"acting-{mode}", cost.microseconds, cost.state_bytes)


def _write(folder: Path, microseconds: list[float], state_bytes: list[int]) -> None:
    for old in folder.glob("events.*"):
        old.unlink()
    cumulated = np.cumsum(microseconds) / 1e3
    with SummaryWriter(str(folder)) as writer:
        for step in _marks(len(microseconds)):
            around = microseconds[max(0, step - 10) : step + 10]  # a single step is noisy
            values = {
                "microseconds": float(np.median(around)),
                "cumulated_milliseconds": float(cumulated[step - 1]),
                "state_bytes": state_bytes[step - 1],
            }
            for name, value in values.items():
                writer.add_scalar(f"acting/{name}", value, step)
        writer.add_custom_scalars(LAYOUT)


def _marks(steps: int) -> list[int]:
    """Up to 50 steps, evenly spread, the first and the last among them."""
    return sorted({round(step) for step in np.linspace(1, steps, 50)})

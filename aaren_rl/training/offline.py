"""What can be seen of an agent without acting: errors by position, and the memory's horizon."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from aaren_rl.agents import Agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.evaluation.length import LengthError, length_errors
from aaren_rl.evaluation.memory import episode_batch, memory_horizon, plot_memory

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class OfflineMetrics:
    """Metrics on held-out episodes.

    Attributes:
        lengths: action errors of carry and window by position.
        margin: the memory's margin (nats) by `layer_L_head_H`, for the longest held-out episode;
            empty for agents other than Aaren.
        horizon: exp(margin), tokens.
        picture: which steps of that episode are held at its end.
    """

    lengths: list[LengthError]
    margin: dict[str, float]
    horizon: dict[str, float]
    picture: Figure | None

    def scalars(self) -> dict[str, float]:
        """By TensorBoard tag."""
        tags = {}
        for row in self.lengths:
            place = f"steps_{row.first}_{row.last}"
            tags[f"held_out/error_carry/{place}"] = row.carry
            tags[f"held_out/error_window/{place}"] = row.window
        for name, value in self.margin.items():
            tags[f"memory/margin/{name}"] = value
            tags[f"memory/horizon/{name}"] = self.horizon[name]
        return tags


def split(data: TrajectoryDataset, share: float) -> tuple[TrajectoryDataset, TrajectoryDataset]:
    """Training and held-out episodes; the same split for every seed and agent.

    Args:
        data: at least two episodes.
        share: of the episodes to hold out; at least one is held out, and one stays.
    """
    order = np.random.default_rng(0).permutation(data.num_episodes)
    count = min(max(1, round(share * data.num_episodes)), data.num_episodes - 1)
    return data.subset(np.sort(order[count:])), data.subset(np.sort(order[:count]))


def offline_metrics(agent: Agent, held_out: TrajectoryDataset) -> OfflineMetrics:
    """Measure on held-out episodes; the same episodes and steps at every call."""
    lengths = length_errors(agent, held_out)
    sequence = getattr(agent, "sequence_model", None)
    if sequence is None or not sequence.can("folds"):  # there are no scores to look at
        return OfflineMetrics(lengths, {}, {}, None)
    batch = episode_batch(held_out, int(held_out.lengths.argmax()))
    memory = memory_horizon(agent, batch.to(agent.observation_mean.device))
    names = {
        (layer, head): f"layer_{layer}_head_{head}"
        for layer in range(memory.margin.shape[0])
        for head in range(memory.margin.shape[1])
    }
    return OfflineMetrics(
        lengths,
        {name: float(memory.margin[place]) for place, name in names.items()},
        {name: float(memory.horizon[place]) for place, name in names.items()},
        plot_memory(memory),
    )

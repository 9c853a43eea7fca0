"""Which tokens of an episode an Aaren agent remembers, and for how long.

A token with score s is remembered over n others of score s' only while s stands more than about
ln(n) above s': its weight is exp(s) / (exp(s) + n exp(s')). So the margin of the highest score over
the rest is the memory's horizon: exp(margin) tokens of the kind that were seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.agents import Agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.sampling import Batch, gather
from aaren_rl.errors import UserError
from aaren_rl.layers import AarenAttention

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class MemoryHorizon:
    """How firmly each layer and head holds its best token of an episode.

    Attributes:
        scores: `[layers, heads, tokens]`; three tokens a step, in the order of the agent's
            condition: return-to-go, observation, action, or observation, return-to-go, action.
        best: int64 `[layers, heads]`, the token with the highest score.
        margin: `[layers, heads]`, its distance to the next best, in nats.
        horizon: `[layers, heads]`, exp(margin), in tokens: after so many like the next best, half
            of the weight is lost.
        held: `[layers, heads, steps]`, weight of each step's tokens at the end; sums to 1.
    """

    scores: np.ndarray
    best: np.ndarray
    margin: np.ndarray
    horizon: np.ndarray
    held: np.ndarray


def episode_batch(data: TrajectoryDataset, episode: int) -> Batch:
    """One whole episode as a batch of one row."""
    first, end = data.offsets[episode : episode + 1], data.offsets[episode + 1 : episode + 2]
    return gather(data, first, end, int(end[0] - first[0]))


@torch.no_grad()
def token_scores(agent: Agent, batch: Batch) -> Tensor:
    """Scores of all tokens of one episode, recency included: float `[layers, heads, tokens]`.

    Raises:
        UserError: an agent without Aaren layers.
    """
    layers = [m for m in agent.modules() if isinstance(m, AarenAttention)]
    if not layers:
        raise UserError(f"{agent.name} has no scores: the memory's horizon is Aaren's alone")
    seen: dict[nn.Module, Tensor] = {}
    hooks = [
        layer.register_forward_pre_hook(lambda layer, inputs: seen.update({layer: inputs[0]}))
        for layer in layers
    ]
    training = agent.training
    try:
        agent.eval().predict(batch)
    finally:
        agent.train(training)
        for hook in hooks:
            hook.remove()
    every = []
    for layer in layers:
        scores, bias = layer.scores(seen[layer]), layer.recency_bias(seen[layer])
        every.append((scores if bias is None else scores + bias[0])[0].T)  # bias at the last token
    return torch.stack(every)


def memory_horizon(agent: Agent, batch: Batch) -> MemoryHorizon:
    """Margins and horizons of an Aaren agent for one episode.

    Args:
        agent: whose mixers are Aaren.
        batch: one episode, see `episode_batch`. It has at least two tokens, since a step has three.

    Raises:
        UserError: an agent without Aaren's scores.
    """
    scores = token_scores(agent, batch).double().cpu()
    top = scores.topk(2, dim=-1)
    margin = top.values[..., 0] - top.values[..., 1]
    held = scores.softmax(-1).unflatten(-1, (-1, agent.tokens_per_step)).sum(-1)
    return MemoryHorizon(
        scores=scores.numpy(),
        best=top.indices[..., 0].numpy(),
        margin=margin.numpy(),
        horizon=margin.exp().numpy(),
        held=held.numpy(),
    )


def plot_memory(memory: MemoryHorizon, title: str = "") -> Figure:
    """A figure with one panel a layer and head: each step's weight at the episode's end."""
    from matplotlib.figure import Figure

    layers, heads, steps = memory.held.shape
    tokens = memory.scores.shape[-1] // steps
    height = 1.2 + 1.1 * layers * heads  # inches
    figure = Figure(figsize=(9, height))
    # Given margins and filled curves: a constrained layout and stairs take 2.5 times as long.
    figure.subplots_adjust(0.08, 0.5 / height, 0.98, 1 - 0.7 / height, hspace=0.4)
    axes: Any = figure.subplots(layers * heads, 1, sharex=True, squeeze=False)[:, 0]
    edges = np.arange(steps + 1) - 0.5
    for row, axis in enumerate(axes):
        layer, head = divmod(row, heads)
        held = memory.held[layer, head]
        axis.fill_between(edges, [*held, held[-1]], step="post", color="tab:blue", linewidth=0)
        margin, horizon = memory.margin[layer, head], memory.horizon[layer, head]
        step = memory.best[layer, head] // tokens
        axis.set_title(
            f"layer {layer}, head {head}: best at step {step}, margin {margin:.1f}, "
            f"horizon {horizon:,.0f} tokens",
            fontsize=9,
            loc="left",
        )
        axis.set_ylim(0, None)
        axis.set_xlim(-0.5, steps - 0.5)
        axis.set_ylabel("weight", fontsize=8)
    axes[-1].set_xlabel("step of the episode")
    figure.suptitle(title or "weight of each step in the state at the episode's end", fontsize=10)
    return figure

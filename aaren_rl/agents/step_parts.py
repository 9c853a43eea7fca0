"""Parts of an acting step with everything constant multiplied out, shared by the sequence agents.

Scales and statistics are folded into the weights, which are stored as the processor reads them, and
what a three-token step never needs (dropout, stacking, general shapes) is left out. Weights are
copied from a `DecisionAgent` whose parts are the plain linear ones, see its `folds` and
`folds_embedding`; it is passed as `Any`, since these parts' types are known only then.
"""

from __future__ import annotations

from copy import deepcopy
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu

from aaren_rl.agents.tokens import TokenKind
from aaren_rl.layers import Block, DiscreteActions
from aaren_rl.layers.folded import Affine, affine, to_numpy

M = TypeVar("M", bound=nn.Module)


class StepEmbedding(nn.Module):
    """The tokens of a chunk (one of `agent.chunks`) from raw numbers, embedded and normed."""

    action_table: Tensor
    timestep_table: Tensor
    frequencies: Tensor
    time_offsets: Tensor
    lowest: Tensor
    highest: Tensor

    def __init__(self, agent: Any, kinds: tuple[TokenKind, ...]) -> None:
        super().__init__()
        self.width, self.timestep_embedding = agent.config.width, agent.config.timestep_embedding
        self.actions, self.tokens = agent.actions, len(kinds)
        self.goal_columns = agent.goal_columns
        # Discrete actions are looked up; all else is one linear map of the numbers side by side.
        self.looks_up = isinstance(agent.actions, DiscreteActions) and "action" in kinds
        self.numbers = kinds[1:] if self.looks_up else kinds
        self.linear = AffineMap(fold_embedding(agent, self.numbers))
        bounds = agent.observation_bounds() if "observation" in kinds else None
        self.clips = bounds is not None
        if bounds is not None:
            self.register_buffer("lowest", bounds[0])
            self.register_buffer("highest", bounds[1])
        if self.looks_up:
            self.register_buffer("action_table", agent.embed_action.weight.detach().clone())
        added = agent.task_vector()
        if added is not None:
            self.linear.bias += added.detach().cpu().repeat(len(self.numbers))
            if self.looks_up:
                self.action_table += added.detach()
        if self.timestep_embedding == "learned":
            table = agent.embed_timestep.weight.detach()
            # A row before the first: step 0's previous action, masked, must look up something.
            self.register_buffer("timestep_table", torch.cat([table[:1], table]))
        elif self.timestep_embedding == "sinusoidal":
            self.register_buffer("frequencies", agent.embed_timestep.frequencies.clone())
        self.register_buffer("time_offsets", torch.tensor([int(k != "action") for k in kinds]))
        self.norm = frozen(agent.embed_norm)

    def forward(
        self, observation: Tensor, returns: Tensor, previous_action: Tensor, timestep: Tensor
    ) -> Tensor:
        """Embed the chunk; inputs that are not part of it are not read.

        Args:
            observation: float32 `[batch, observation_size]`.
            returns: return-to-go, `[batch, 1]`.
            previous_action: float32 `[batch, action_size]`, or int64 `[batch, 1]`.
            timestep: int64 `[batch, 1]`.

        Returns:
            Tokens `[tokens batch, width]`, one environment's after the other's.
        """
        if self.clips:  # raw numbers: standardising is part of the linear map
            observation = observation.clamp(self.lowest, self.highest)
        given = {"action": previous_action, "return": returns, "observation": observation}
        if self.goal_columns is not None:
            given["goal"] = observation[:, self.goal_columns]
        x = self.linear(torch.cat([given[kind].float() for kind in self.numbers], dim=1))
        if isinstance(self.actions, DiscreteActions) and self.looks_up:
            x = torch.cat([self.action_table[previous_action[:, 0] - self.actions.start], x], 1)
        if self.timestep_embedding == "learned":
            times = embedding(timestep + self.time_offsets, self.timestep_table)
            x = x.view(-1, self.tokens, self.width) + times
        elif self.timestep_embedding == "sinusoidal":
            angles = (timestep + self.time_offsets - 1)[..., None] * self.frequencies
            waves = torch.cat([angles.sin(), angles.cos()], dim=-1).float()
            x = x.view(-1, self.tokens, self.width) + waves
        out: Tensor = self.norm(x.view(-1, self.width))
        return out


class AffineMap(nn.Module):
    """`x @ weight + bias`, with the weight as the processor reads it."""

    weight: Tensor
    bias: Tensor

    def __init__(self, weights: Affine) -> None:
        super().__init__()
        for name, values in zip(("weight", "bias"), weights, strict=True):
            self.register_buffer(name, torch.from_numpy(np.array(values, np.float32, order="C")))

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, in]` to `[rows, out]`."""
        return torch.addmm(self.bias, x, self.weight)


def frozen(module: M) -> M:
    """A copy of a module that is not trained."""
    return deepcopy(module).requires_grad_(False)


class StepFeedForward(nn.Module):
    """The second half of a `Block`: `x + feed_forward(norm(x))`."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        self.relu = isinstance(block.feed_forward.activation, nn.ReLU)
        self.norm = frozen(block.feed_forward_norm)
        self.expand = AffineMap(affine(block.feed_forward.expand))
        self.contract = AffineMap(affine(block.feed_forward.contract))

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, width]` to the same."""
        hidden = self.expand(self.norm(x))
        hidden = hidden.relu() if self.relu else gelu(hidden, approximate="tanh")
        return x + self.contract(hidden)


def head_of(agent: Any) -> AffineMap:
    """The agent's last linear layer."""
    plain = not isinstance(agent.head, nn.Sequential)  # else a tanh follows
    return AffineMap(affine(agent.head if plain else agent.head[0]))


class ReturnHead(AffineMap):
    """`DecisionAgent.predict_return` as one map, clamped at `largest` (`None` for no limit)."""

    def __init__(self, weights: Affine, largest: float | None) -> None:
        super().__init__(weights)
        self.largest = largest

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, width]` to `[rows, 1]`."""
        returns = super().forward(x)
        return returns if self.largest is None else returns.clamp(max=self.largest)


def return_head_of(agent: Any) -> ReturnHead | None:
    """The agent's return head; `None` for an agent that is asked for a return."""
    if agent.return_head is None:
        return None
    weight, bias = affine(agent.return_head)
    scale, shift = agent.spec.returns_scale, agent.spec.returns_shift
    return ReturnHead((weight * scale, bias * scale + shift), agent.spec.largest_return)


def as_column(actions: Tensor) -> Tensor:
    """Actions `[batch, size]` as they are; discrete ones, `[batch]`, as `[batch, 1]`."""
    return actions if actions.dim() == 2 else actions[:, None]


def fold_embedding(agent: Any, kinds: tuple[TokenKind, ...]) -> Affine:
    """One map of raw numbers (returns-to-go, observations, continuous actions) to their tokens."""
    scale, shift = agent.spec.returns_scale, agent.spec.returns_shift
    mean, std = to_numpy(agent.observation_mean), to_numpy(agent.observation_std)
    parts = []
    for kind in kinds:
        if kind == "return":
            parts.append(_scaled(agent.embed_return, 1 / scale, -shift / scale))
        elif kind == "goal":
            goal = agent.goal_columns
            parts.append(_scaled(agent.embed_return, 1 / std[goal], -mean[goal] / std[goal]))
        elif kind == "observation":
            parts.append(_scaled(agent.embed_observation, 1 / std, -mean / std))
        else:
            middle, reach = to_numpy(agent.actions.middle), to_numpy(agent.actions.reach)
            parts.append(_scaled(agent.embed_action, 1 / reach, -middle / reach))
    return _block_diagonal(parts)


def _scaled(layer: nn.Linear, scale: np.ndarray | float, shift: np.ndarray | float) -> Affine:
    """The layer's map of `scale x + shift` as one of x."""
    weight, bias = affine(layer)
    scale, shift = np.broadcast_to(scale, len(weight)), np.broadcast_to(shift, len(weight))
    return weight * scale[:, None], bias + shift @ weight


def _block_diagonal(parts: list[Affine]) -> Affine:
    """Several maps, each of its own inputs, as one."""
    whole = torch.block_diag(*(torch.from_numpy(weight.copy()) for weight, _ in parts))
    return whole.numpy(), np.concatenate([bias for _, bias in parts])

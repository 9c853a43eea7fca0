"""Decision Aaren's acting step with everything constant multiplied out: the form that acts fast.

The same numbers as `DecisionAaren.predict`, to float rounding, with the fewest operations: scales
and statistics are in the weights, each layer's attention is `aaren_rl.layers.folded`, and the last
feed-forward part is computed for the observation's token alone. The exported ONNX graph
(`aaren_rl.export.onnx_step`) is this module written down in ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import embedding, gelu, layer_norm

from aaren_rl.agents.actions import ContinuousActions, DiscreteActions
from aaren_rl.agents.trajectory_agent import SinusoidalEmbedding
from aaren_rl.layers import AarenAttention, Block
from aaren_rl.layers.folded import (
    Affine,
    affine,
    attend,
    fold_attention,
    to_numpy,
    visibility,
)

if TYPE_CHECKING:
    from aaren_rl.agents.decision_aaren import DecisionAaren

TOKENS = 3  # (a_{t-1}, R_t, s_t)
M = TypeVar("M", bound=nn.Module)


class AarenStep(nn.Module):
    """One environment step for a batch of environments; weights are copied from the agent.

    Args:
        agent: a trained agent. Training it further does not change this module.
    """

    action_table: Tensor
    timestep_table: Tensor
    frequencies: Tensor
    later: Tensor
    afresh: Tensor
    time_offsets: Tensor

    def __init__(self, agent: DecisionAaren) -> None:
        super().__init__()
        config, head = agent.config, agent.head
        self.width, self.heads = config.width, config.heads
        self.dim = config.width // config.heads
        self.timestep_embedding = config.timestep_embedding
        self.actions = agent.actions
        self.discrete = isinstance(agent.actions, DiscreteActions)
        self.embed = AffineMap(_fold_embedding(agent))
        if self.discrete:
            self._keep("action_table", to_numpy(_part(agent.embed_action, nn.Embedding).weight))
        if config.timestep_embedding == "learned":
            table = to_numpy(_part(agent.embed_timestep, nn.Embedding).weight)
            # A row before the first: step 0's previous action, masked, must look up something.
            self._keep("timestep_table", np.concatenate([table[:1], table]))
        elif config.timestep_embedding == "sinusoidal":
            frequencies = _part(agent.embed_timestep, SinusoidalEmbedding).frequencies
            self.register_buffer("frequencies", frequencies.clone())
        self.register_buffer("time_offsets", torch.tensor([0, 1, 1]))
        self._keep("later", visibility(TOKENS)[None, None])
        self._keep("afresh", visibility(TOKENS, first_may_miss=True)[None, None])
        self.embed_norm = CopiedNorm(agent.embed_norm)
        self.blocks = nn.ModuleList(
            StepBlock(_part(block, Block)) for block in agent.sequence_model.blocks
        )
        self.norm = CopiedNorm(agent.sequence_model.norm)
        self.head = AffineMap(
            affine(_part(head[0] if isinstance(head, nn.Sequential) else head, nn.Linear))
        )
        self.to(agent.observation_mean.device)

    def _keep(self, name: str, values: np.ndarray) -> None:
        self.register_buffer(name, torch.from_numpy(np.array(values, dtype=np.float32)))

    def empty_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state before the first step, a tensor a layer; not read where `reset` is true."""
        shape = (batch, self.heads, 1, self.dim + 2)
        return tuple(torch.zeros(shape, device=self.later.device) for _ in self.blocks)

    def forward(
        self,
        observation: Tensor,
        reward: Tensor,
        previous_action: Tensor,
        reset: Tensor,
        target_return: Tensor,
        return_to_go: Tensor,
        timestep: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step, from raw numbers to raw numbers.

        Args:
            observation: float32 `[batch, observation_size]`.
            reward: float64 `[batch, 1]`, what the last action earned.
            previous_action: float32 `[batch, action_size]`, or int64 `[batch, 1]`.
            reset: bool `[batch, 1]`, true where this observation begins an episode.
            target_return: float64 `[batch, 1]`, read where `reset`.
            return_to_go: float64 `[batch, 1]`, as the last step returned it.
            timestep: int64 `[batch, 1]`, as the last step returned it.
            state: a tensor a layer, as the last step returned them.

        Returns:
            Action, next return-to-go, next timestep, next state of each layer.
        """
        returns, time = self.advance(reward, reset, target_return, return_to_go, timestep)
        action, new_state = self.decide(observation, returns, previous_action, time, reset, state)
        return (action, returns, time + 1, *new_state)

    def advance(
        self, reward: Tensor, reset: Tensor, target: Tensor, return_to_go: Tensor, timestep: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Return-to-go and timestep of this step; arguments as in `forward`."""
        returns = torch.where(reset, target, return_to_go - reward)
        return returns, torch.where(reset, 0, timestep)

    def decide(
        self,
        observation: Tensor,
        returns_to_go: Tensor,
        previous_action: Tensor,
        timestep: Tensor,
        afresh: Tensor,
        state: tuple[Tensor, ...],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The action, and the state after it; the past is left out where `afresh` is true."""
        x = self._tokens(observation, returns_to_go, previous_action, timestep)
        mask = torch.where(afresh[:, :, None, None], self.afresh, self.later)
        new = []
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            x, layer = block(x, state[index], mask, last)
            new.append(layer)
        return self._finish(self.head(self.norm(x))), tuple(new)

    def _tokens(
        self, observation: Tensor, returns: Tensor, previous_action: Tensor, timestep: Tensor
    ) -> Tensor:
        """The chunk `(a_{t-1}, R_t, s_t)`, embedded: `[3 batch, width]`."""
        values = [returns.float(), observation]
        if not self.discrete:
            values.insert(0, previous_action)
        x = self.embed(torch.cat(values, dim=1))
        if isinstance(self.actions, DiscreteActions):
            x = torch.cat([self.action_table[previous_action[:, 0] - self.actions.start], x], 1)
        if self.timestep_embedding == "learned":
            times = embedding(timestep + self.time_offsets, self.timestep_table)
            x = x.view(-1, TOKENS, self.width) + times
        elif self.timestep_embedding == "sinusoidal":
            angles = (timestep + self.time_offsets - 1)[..., None] * self.frequencies
            waves = torch.cat([angles.sin(), angles.cos()], dim=-1).float()
            x = x.view(-1, TOKENS, self.width) + waves
        out: Tensor = self.embed_norm(x.view(-1, self.width))
        return out

    def _finish(self, predictions: Tensor) -> Tensor:
        """Head outputs `[batch, size]` to actions; discrete ones `[batch, 1]`."""
        codec = self.actions
        if isinstance(codec, ContinuousActions):
            return codec.decide(predictions.tanh() if codec.bounded else predictions)
        return codec.decide(predictions)[:, None]


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


class CopiedNorm(nn.Module):
    """A layer norm with the weights copied."""

    weight: Tensor
    bias: Tensor

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.epsilon, self.shape = norm.eps, norm.normalized_shape
        self.register_buffer("weight", norm.weight.detach().clone())
        self.register_buffer("bias", norm.bias.detach().clone())

    def forward(self, x: Tensor) -> Tensor:
        """`[rows, width]` to the same."""
        return layer_norm(x, self.shape, self.weight, self.bias, self.epsilon)


class StepBlock(nn.Module):
    """`aaren_rl.layers.Block` for the three tokens of a step."""

    out: AffineMap | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        folded = fold_attention(_part(block.mixer, AarenAttention))
        self.heads, self.dim = folded.heads, folded.dim
        self.relu = isinstance(block.feed_forward.activation, nn.ReLU)
        self.mixer_norm = CopiedNorm(block.mixer_norm)
        self.project = AffineMap(folded.project)
        self.out = None if folded.out is None else AffineMap(folded.out)
        self.feed_forward_norm = CopiedNorm(block.feed_forward_norm)
        self.expand = AffineMap(affine(block.feed_forward.expand))
        self.contract = AffineMap(affine(block.feed_forward.contract))

    def forward(self, x: Tensor, state: Tensor, mask: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Tokens `[3 batch, width]`; from the last block the observation's, `[batch, width]`."""
        rows = self.project(self.mixer_norm(x)).view(-1, TOKENS, self.heads, self.dim + 2)
        outputs, state = attend(rows.transpose(1, 2), state, mask, last)
        outputs = outputs.transpose(1, 2).reshape(-1, self.heads * self.dim)
        if self.out is not None:
            outputs = self.out(outputs)
        if last:
            x = x.view(-1, TOKENS, x.shape[1])[:, -1]
        x = x + outputs
        hidden = self.expand(self.feed_forward_norm(x))
        hidden = hidden.relu() if self.relu else gelu(hidden, approximate="tanh")
        return x + self.contract(hidden), state


def _part(module: nn.Module, kind: type[M]) -> M:
    """A part of the agent, known to be of this kind."""
    assert isinstance(module, kind)
    return module


def _fold_embedding(agent: DecisionAaren) -> Affine:
    """One map of (previous action, return-to-go, observation), raw, to their tokens side by side.

    Without the action where actions are discrete: those are looked up.
    """
    mean, std = to_numpy(agent.observation_mean), to_numpy(agent.observation_std)
    parts = [
        _scaled(affine(agent.embed_return), 1 / agent.spec.returns_scale, 0.0),
        _scaled(affine(agent.embed_observation), 1 / std, -mean / std),
    ]
    codec = agent.actions
    if isinstance(codec, ContinuousActions):
        middle, reach = to_numpy(codec.middle), to_numpy(codec.reach)
        weights = affine(_part(agent.embed_action, nn.Linear))
        parts.insert(0, _scaled(weights, 1 / reach, -middle / reach))
    return _block_diagonal(parts)


def _scaled(weights: Affine, scale: np.ndarray | float, shift: np.ndarray | float) -> Affine:
    """The map of `scale x + shift` as one of x."""
    weight, bias = weights
    scale, shift = np.broadcast_to(scale, len(weight)), np.broadcast_to(shift, len(weight))
    return weight * scale[:, None], bias + shift @ weight


def _block_diagonal(parts: list[Affine]) -> Affine:
    """Several maps, each of its own inputs, as one."""
    rows = [len(weight) for weight, _ in parts]
    columns = [weight.shape[1] for weight, _ in parts]
    whole = np.zeros((sum(rows), sum(columns)))
    row = column = 0
    for (weight, _), height, width in zip(parts, rows, columns, strict=True):
        whole[row : row + height, column : column + width] = weight
        row, column = row + height, column + width
    return whole, np.concatenate([bias for _, bias in parts])

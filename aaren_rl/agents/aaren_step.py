"""Decision Aaren's acting step with everything constant multiplied out: the form that acts fast.

The same numbers as `DecisionAaren.predict`, to float rounding, with the fewest operations: scales
and statistics are in the weights, each layer's attention is `aaren_rl.layers.folded`, and the last
feed-forward part is computed for the observation's token alone. The exported ONNX graph
(`aaren_rl.export.onnx_step`) is this module written down in ONNX.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from aaren_rl.agents.step_parts import (
    TOKENS,
    AffineMap,
    CopiedNorm,
    StepEmbedding,
    StepFeedForward,
    decide,
    head_of,
    part,
)
from aaren_rl.layers import AarenAttention, Block
from aaren_rl.layers.folded import attend, fold_attention, visibility

if TYPE_CHECKING:
    from aaren_rl.agents.decision_aaren import DecisionAaren


class AarenStep(nn.Module):
    """One environment step for a batch of environments; weights are copied from the agent.

    Args:
        agent: a trained agent. Training it further does not change this module.
    """

    later: Tensor
    afresh: Tensor

    def __init__(self, agent: DecisionAaren) -> None:
        super().__init__()
        config = agent.config
        self.width, self.heads = config.width, config.heads
        self.dim = config.width // config.heads
        self.actions = agent.actions
        self.embedding = StepEmbedding(agent)
        for name, missing in (("later", False), ("afresh", True)):
            mask = torch.from_numpy(visibility(TOKENS, first_may_miss=missing))
            self.register_buffer(name, mask[None, None])
        self.blocks = nn.ModuleList(StepBlock(part(b, Block)) for b in agent.sequence_model.blocks)
        self.norm = CopiedNorm(agent.sequence_model.norm)
        self.head = head_of(agent)
        self.to(agent.observation_mean.device)

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
        x = self.embedding(observation, returns_to_go, previous_action, timestep)
        mask = torch.where(afresh[:, :, None, None], self.afresh, self.later)
        new = []
        for index, block in enumerate(self.blocks):
            last = index == len(self.blocks) - 1
            x, layer = block(x, state[index], mask, last)
            new.append(layer)
        return decide(self.actions, self.head(self.norm(x))), tuple(new)


class StepBlock(nn.Module):
    """`aaren_rl.layers.Block` for the three tokens of a step."""

    out: AffineMap | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        folded = fold_attention(part(block.mixer, AarenAttention))
        self.heads, self.dim = folded.heads, folded.dim
        self.norm = CopiedNorm(block.mixer_norm)
        self.project = AffineMap(folded.project)
        self.out = None if folded.out is None else AffineMap(folded.out)
        self.feed_forward = StepFeedForward(block)

    def forward(self, x: Tensor, state: Tensor, mask: Tensor, last: bool) -> tuple[Tensor, Tensor]:
        """Tokens `[3 batch, width]`; from the last block the observation's, `[batch, width]`."""
        rows = self.project(self.norm(x)).view(-1, TOKENS, self.heads, self.dim + 2)
        outputs, state = attend(rows.transpose(1, 2), state, mask, last)
        outputs = outputs.transpose(1, 2).reshape(-1, self.heads * self.dim)
        if self.out is not None:
            outputs = self.out(outputs)
        if last:
            x = x.view(-1, TOKENS, x.shape[1])[:, -1]
        return self.feed_forward(x + outputs), state

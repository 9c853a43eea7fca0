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
from aaren_rl.layers.folded import (
    ABSENT,
    NO_MAXIMUM,
    NOTHING,
    attend,
    attend_bounded,
    causal,
    fold_attention,
    recency_of_step,
)

if TYPE_CHECKING:
    from aaren_rl.agents.decision_aaren import DecisionAaren


class AarenStep(nn.Module):
    """One environment step for a batch of environments; weights are copied from the agent.

    Args:
        agent: a trained agent. Training it further does not change this module.
    """

    absent: Tensor
    causal: Tensor

    def __init__(self, agent: DecisionAaren) -> None:
        super().__init__()
        config = agent.config
        self.width, self.heads = config.width, config.heads
        self.dim = config.width // config.heads
        self.actions = agent.actions
        self.embedding = StepEmbedding(agent)
        blocks = [StepBlock(part(block, Block)) for block in agent.sequence_model.blocks]
        self.blocks = nn.ModuleList(blocks)
        self.carries_maximum = any(block.bound > NO_MAXIMUM for block in blocks)
        self.norm = CopiedNorm(agent.sequence_model.norm)
        self.head = head_of(agent)
        first = torch.zeros(1, 1, TOKENS, 1)
        first[:, :, 0] = ABSENT  # an episode's first step has no previous action
        self.register_buffer("absent", first)
        self.register_buffer("causal", torch.from_numpy(causal(TOKENS)))
        self.to(agent.observation_mean.device)

    @property
    def layer_state(self) -> tuple[tuple[str, int, float], ...]:
        """Name, size `[batch, heads, size]` and empty value of each of a layer's state tensors."""
        sums = ("state", self.dim + 1, NOTHING)
        return (sums, ("maximum", 1, ABSENT)) if self.carries_maximum else (sums,)

    def empty_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state before an episode's first step, layer after layer."""
        return tuple(
            torch.full((batch, self.heads, size), value, device=self.absent.device)
            for _ in self.blocks
            for _, size, value in self.layer_state
        )

    def forward(
        self,
        observation: Tensor,
        reward: Tensor,
        previous_action: Tensor,
        return_to_go: Tensor,
        timestep: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """One step, from raw numbers to raw numbers.

        Args:
            observation: float32 `[batch, observation_size]`.
            reward: float64 `[batch, 1]`, what the last action earned; 0 at an episode's start.
            previous_action: float32 `[batch, action_size]`, or int64 `[batch, 1]`; any valid one
                at an episode's start.
            return_to_go: float64 `[batch, 1]`, as the last step returned it, or the target return.
            timestep: int64 `[batch, 1]`, as the last step returned it, or 0.
            state: as the last step returned it, or `empty_state`.

        Returns:
            Action, next return-to-go, next timestep, next state.
        """
        returns = return_to_go - reward
        action, new = self.decide(
            observation, returns, previous_action, timestep, timestep == 0, state
        )
        return (action, returns, timestep + 1, *new)

    def decide(
        self,
        observation: Tensor,
        returns_to_go: Tensor,
        previous_action: Tensor,
        timestep: Tensor,
        first: Tensor | None,
        state: tuple[Tensor, ...],
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """The action and the state after it.

        Args:
            observation: as in `forward`.
            returns_to_go: of this step.
            previous_action: as in `forward`.
            timestep: as in `forward`.
            first: bool `[batch, 1]`, true where there is no previous action; `None` for nowhere.
            state: as in `forward`.
        """
        x = self.embedding(observation, returns_to_go, previous_action, timestep)
        absent = None
        if first is not None:
            absent = torch.where(first[:, :, None, None], self.absent, 0.0)
        tensors = len(self.layer_state)
        new: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            own = state[index * tensors : (index + 1) * tensors]
            last = index == len(self.blocks) - 1
            x, *layer = block(x, own, absent, self.causal, last)
            new += layer
        return decide(self.actions, self.head(self.norm(x))), tuple(new)


class StepBlock(nn.Module):
    """`aaren_rl.layers.Block` for the three tokens of a step."""

    out: AffineMap | None
    recency: Tensor | None
    passed: Tensor | None

    def __init__(self, block: Block) -> None:
        super().__init__()
        folded = fold_attention(part(block.mixer, AarenAttention), block.mixer_norm)
        self.heads, self.dim, self.bound = folded.heads, folded.dim, folded.bound
        self.norm = CopiedNorm(block.mixer_norm)
        self.project = AffineMap(folded.project)
        self.out = None if folded.out is None else AffineMap(folded.out)
        self.feed_forward = StepFeedForward(block)
        recency = passed = None
        if folded.recency is not None:
            parts = recency_of_step(folded.recency, TOKENS)
            recency, passed = (torch.from_numpy(values) for values in parts)
        self.register_buffer("recency", recency)  # added to scores, [heads, tokens, 1]
        self.register_buffer("passed", passed)  # taken from the maximum, [heads, 1]

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        absent: Tensor | None,
        mask: Tensor,
        last: bool,
    ) -> tuple[Tensor, ...]:
        """Tokens and the new state.

        Tokens are `[3 batch, width]`; from the last block the observation's, `[batch, width]`.
        """
        rows = self.project(self.norm(x)).view(-1, TOKENS, self.heads, self.dim + 2).transpose(1, 2)
        new: list[Tensor]
        if self.recency is not None and self.passed is not None:
            absent = self.recency if absent is None else absent + self.recency
            if len(state) == 1:
                state = (state[0] * (-self.passed).exp(),)
            else:
                state = (state[0], state[1] - self.passed)
        if len(state) == 1:
            outputs, *new = attend_bounded(rows, state[0], absent, last)
        else:
            outputs, *new = attend(rows, state[0], state[1], absent, mask, last)
        outputs = outputs.transpose(1, 2).reshape(-1, self.heads * self.dim)
        if self.out is not None:
            outputs = self.out(outputs)
        if last:
            x = x.view(-1, TOKENS, x.shape[1])[:, -1]
        return self.feed_forward(x + outputs), *new

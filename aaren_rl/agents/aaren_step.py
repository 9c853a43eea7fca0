"""Decision Aaren's fast acting step, with everything constant multiplied out.

The same numbers as `DecisionAgent.predict`, to float rounding, with the fewest operations: scales
and statistics are in the weights, each layer's attention is `aaren_rl.layers.folded`, and the last
feed-forward part is computed for a chunk's last token alone. Exported files hold
this module (`aaren_rl.export`), so its operations are those that ONNX Runtime is fast at: splits
instead of slices, and a single head without an axis of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from aaren_rl.agents.step_parts import (
    AffineMap,
    StepEmbedding,
    StepFeedForward,
    as_column,
    frozen,
    head_of,
    return_head_of,
)
from aaren_rl.agents.tokens import TokenKind
from aaren_rl.layers.folded import (
    ABSENT,
    NO_MAXIMUM,
    NOTHING,
    attend,
    attend_bounded,
    causal,
    fold_attention,
    recency_of_step,
    to_numpy,
)

if TYPE_CHECKING:
    from aaren_rl.agents.decision import DecisionAgent


class AarenStep(nn.Module):
    """One environment step for a batch of environments; weights are copied from the agent.

    Args:
        agent: a trained agent. Training it further does not change this module.
    """

    def __init__(self, agent: DecisionAgent) -> None:
        super().__init__()
        config = agent.config
        self.width, self.heads = config.width, config.heads
        self.dim = config.width // config.heads
        self.actions = agent.actions
        chunks = [StepChunk(agent, kinds) for kinds in agent.chunks]
        if config.timestep_embedding == "learned":  # one table for all chunks
            first, *others = (chunk.embedding for chunk in chunks)
            for embedding in others:
                embedding.timestep_table = first.timestep_table
        blocks = [StepBlock(block) for block in agent.sequence_model.blocks]
        self.chunks, self.blocks = nn.ModuleList(chunks), nn.ModuleList(blocks)
        self.carries_maximum = any(block.bound > NO_MAXIMUM for block in blocks)
        self.norm = frozen(agent.sequence_model.norm)
        self.head = head_of(agent)
        self.squashes = isinstance(list(agent.head.modules())[-1], nn.Tanh)
        self.return_head = return_head_of(agent)
        self.to(agent.observation_mean.device)

    @property
    def layer_state(self) -> tuple[tuple[str, int, float], ...]:
        """Name, size `[batch, heads, size]` and empty value of each of a layer's state tensors."""
        sums = ("state", self.dim + 1, NOTHING)
        return (sums, ("maximum", 1, ABSENT)) if self.carries_maximum else (sums,)

    def empty_state(self, batch: int) -> tuple[Tensor, ...]:
        """The state before an episode's first step, layer after layer."""
        return tuple(
            torch.full((batch, self.heads, size), value, device=self.head.weight.device)
            for _ in self.blocks
            for _, size, value in self.layer_state
        )

    def decide(self, *given: Any) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """As `predict`, with the action in the place of the predictions."""
        predictions, returns, state = self.predict(*given)
        return as_column(self.actions.decide(predictions)), returns, state

    def predict(
        self,
        observation: Tensor,
        returns_to_go: Tensor,
        previous_action: Tensor,
        timestep: Tensor,
        first: Tensor | None,
        state: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """One step.

        Args:
            observation: float32 `[batch, observation_size]`, raw.
            returns_to_go: of this step, `[batch, 1]`; with `max-return` it is predicted.
            previous_action: float32 `[batch, action_size]`, or int64 `[batch, 1]`; any valid one
                at an episode's start.
            timestep: int64 `[batch, 1]`, 0 at an episode's start.
            first: bool `[batch, 1]`, true where there is no previous action; `None` for nowhere.
            state: as the last step returned it, or `empty_state`.

        Returns:
            Predictions of the action head, the return-to-go that the action is taken on, and the
            next state.
        """
        chunk: Any
        for index, chunk in enumerate(self.chunks):
            x = chunk.embedding(observation, returns_to_go, previous_action, timestep)
            features, state = self._read(chunk, x, first, state)
            if index < len(self.chunks) - 1 and self.return_head is not None:
                returns_to_go = self.return_head(features).to(returns_to_go.dtype)
        predictions = self.head(features)
        return predictions.tanh() if self.squashes else predictions, returns_to_go, state

    def _read(
        self, chunk: Any, x: Tensor, first: Tensor | None, state: tuple[Tensor, ...]
    ) -> tuple[Tensor, tuple[Tensor, ...]]:
        """Features of a chunk's last token, `[batch, width]`, and the state after it."""
        added = chunk.added_to_scores(first)
        tensors = len(self.layer_state)
        new: list[Tensor] = []
        for index, block in enumerate(self.blocks):
            own = state[index * tensors : (index + 1) * tensors]
            last = index == len(self.blocks) - 1
            x, *layer = block(x, own, chunk, added, last)
            new += layer
        return self.norm(x), tuple(new)


class StepChunk(nn.Module):
    """A chunk (one of `agent.chunks`): its embedding, and constants that depend on its length."""

    causal: Tensor
    upto: Tensor
    recency: Tensor | None
    at_first: Tensor
    otherwise: Tensor
    passed: Tensor | None
    kept: Tensor | None

    def __init__(self, agent: Any, kinds: tuple[TokenKind, ...]) -> None:
        super().__init__()
        self.tokens = len(kinds)
        self.embedding = StepEmbedding(agent, kinds)
        self.register_buffer("causal", torch.from_numpy(causal(self.tokens)))
        self.register_buffer("upto", torch.ones(self.tokens, self.tokens).tril())
        layer = agent.sequence_model.blocks[0].mixer
        recency = passed = None
        if layer.recency is not None:  # the same in all layers
            parts = recency_of_step(to_numpy(layer.recency), self.tokens)
            recency, passed = (torch.from_numpy(values) for values in parts)
            recency = recency[0] if layer.heads == 1 else recency
        # Subtracted from the maximum, [heads, 1]; as a factor of the sums.
        self.register_buffer("passed", passed)
        self.register_buffer("kept", None if passed is None else (-passed).exp())
        # Added to scores, [heads, tokens, 1], or [tokens, 1] of a single head.
        self.register_buffer("recency", recency)
        shape = (self.tokens, 1) if layer.heads == 1 else (1, self.tokens, 1)
        otherwise = torch.zeros(shape) if recency is None else recency.clone()
        at_first = otherwise.clone()
        at_first[..., 0, :] += ABSENT  # an episode's first step has no previous action
        self.register_buffer("at_first", at_first)
        self.register_buffer("otherwise", otherwise)

    def added_to_scores(self, first: Tensor | None) -> Tensor | None:
        """The bias of the scores, `[batch or 1, heads or 1, tokens, 1]`; `None` for none.

        With a single head there is no axis for the heads. `first` is as in `AarenStep.predict`.
        """
        if self.tokens == 1:  # no previous action, and recency counts back from this very token
            return None
        if first is None:
            return self.recency
        first = first.view(-1, *[1] * self.at_first.dim())
        return torch.where(first, self.at_first, self.otherwise)


class StepBlock(nn.Module):
    """`aaren_rl.layers.Block` for the tokens of a chunk."""

    out: AffineMap | None

    def __init__(self, block: Any) -> None:
        super().__init__()
        folded = fold_attention(block.mixer, block.mixer_norm)
        self.heads, self.dim, self.bound = folded.heads, folded.dim, folded.bound
        self.norm = frozen(block.mixer_norm)
        self.project = AffineMap(folded.project)
        self.out = None if folded.out is None else AffineMap(folded.out)
        self.feed_forward = StepFeedForward(block)

    def forward(
        self,
        x: Tensor,
        state: tuple[Tensor, ...],
        chunk: StepChunk,
        added: Tensor | None,
        last: bool,
    ) -> tuple[Tensor, ...]:
        """Tokens and the new state.

        Tokens are `[tokens batch, width]`; from the last block the last one's, `[batch, width]`.
        """
        rows = self.project(self.norm(x))
        if self.heads == 1:  # without an axis for the heads
            rows = rows.view(-1, chunk.tokens, self.dim + 2)
        else:
            rows = rows.view(-1, chunk.tokens, self.heads, self.dim + 2).transpose(1, 2)
        new: list[Tensor]
        if chunk.passed is not None and chunk.kept is not None:
            if len(state) == 1:
                state = (state[0] * chunk.kept,)
            else:
                state = (state[0], state[1] - chunk.passed)
        newest = last or chunk.tokens == 1
        if len(state) == 1:
            outputs, *new = attend_bounded(rows, state[0], added, None if newest else chunk.upto)
        else:
            outputs, *new = attend(rows, state[0], state[1], added, chunk.causal, newest)
        if self.heads > 1 and not newest:
            outputs = outputs.transpose(1, 2)
        outputs = outputs.reshape(-1, self.heads * self.dim)
        if self.out is not None:
            outputs = self.out(outputs)
        if last and chunk.tokens > 1:
            x = x.view(-1, chunk.tokens, x.shape[1])[:, -1]
        return self.feed_forward(x + outputs), *new

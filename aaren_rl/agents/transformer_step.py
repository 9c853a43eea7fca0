"""Decision Transformer's acting step as lean as Decision Aaren's, so that the two compare fairly.

It has what `SteppingPolicy` uses of an agent (`embed_step`, `read`, `head`, `predict_return`), for
a cache. Attention itself is torch's, over the same `KeyValueCache`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention

from aaren_rl.agents.step_parts import (
    AffineMap,
    CopiedNorm,
    StepEmbedding,
    StepFeedForward,
    head_of,
    part,
    return_head_of,
)
from aaren_rl.layers import Block, CausalSelfAttention, KeyValueCache, SequenceState
from aaren_rl.layers.mixers.attention import visible
from aaren_rl.layers.folded import affine

if TYPE_CHECKING:
    from aaren_rl.agents.decision_transformer import DecisionTransformer


class TransformerStep(nn.Module):
    """One environment step for a batch of environments; weights are copied from the agent.

    Args:
        agent: a trained agent. Training it further does not change this module.
    """

    def __init__(self, agent: DecisionTransformer) -> None:
        super().__init__()
        self.width, self.discrete = agent.config.width, agent.spec.discrete
        self.embeddings = nn.ModuleList(StepEmbedding(agent, kinds) for kinds in agent.chunks)
        self.blocks = nn.ModuleList(
            TransformerBlock(part(block, Block)) for block in agent.sequence_model.blocks
        )
        self.norm = CopiedNorm(agent.sequence_model.norm)
        squash = getattr(agent.actions, "bounded", False)
        self.head = nn.Sequential(head_of(agent), nn.Tanh() if squash else nn.Identity())
        self.return_head = return_head_of(agent)
        self.to(agent.observation_mean.device)

    def embed_step(
        self,
        chunk: int,
        previous_actions: Tensor,
        returns_to_go: Tensor,
        observations: Tensor,
        timesteps: Tensor,
    ) -> Tensor:
        """As `TrajectoryAgent.embed_step`."""
        if self.discrete:
            previous_actions = previous_actions[:, None]
        times = timesteps[:, None]
        tokens: Tensor = self.embeddings[chunk](observations, returns_to_go, previous_actions, times)
        return tokens.view(len(timesteps), -1, self.width)

    def predict_return(self, features: Tensor) -> Tensor:
        """As `TrajectoryAgent.predict_return`, for features `[batch, width]`."""
        assert self.return_head is not None
        out: Tensor = self.return_head(features)
        return out

    def read(
        self,
        tokens: Tensor,
        state: SequenceState | None = None,
        mask: Tensor | None = None,
        read: slice = slice(None),
    ) -> tuple[Tensor, SequenceState]:
        """As `TrajectoryAgent.read`, for the newest token alone."""
        x, new = tokens, []
        for index, block in enumerate(self.blocks):
            cache = None if state is None else part_of(state, index)
            newest = index == len(self.blocks) - 1
            x, cache = block(x, cache, mask, newest)
            new.append(cache)
        features: Tensor = self.norm(x.flatten(0, 1))
        return features[:, None], SequenceState(tuple(new))


class TransformerBlock(nn.Module):
    """`aaren_rl.layers.Block` around causal self-attention, for a step."""

    def __init__(self, block: Block) -> None:
        super().__init__()
        mixer = part(block.mixer, CausalSelfAttention)
        self.heads = mixer.heads
        self.norm = CopiedNorm(block.mixer_norm)
        self.query_key_value = AffineMap(affine(mixer.query_key_value))
        self.out = AffineMap(affine(mixer.out))
        self.feed_forward = StepFeedForward(block)

    def forward(
        self, x: Tensor, cache: KeyValueCache | None, mask: Tensor | None, newest: bool
    ) -> tuple[Tensor, KeyValueCache]:
        """Tokens `[batch, time, width]` to the same, or to `[batch, 1, width]` if `newest`."""
        batch, time, width = x.shape
        flat = x.reshape(-1, width)
        projected = self.query_key_value(self.norm(flat)).view(batch, time, 3, self.heads, -1)
        queries, keys, values = projected.permute(2, 0, 3, 1, 4)
        new = KeyValueCache(keys, values, mask)
        if cache is not None:
            new = cache.append(keys, values, mask)
        if newest:
            flat, queries, time = x[:, -1], queries[:, :, -1:], 1
        causal, seen = visible(new, time, None)
        mixed = scaled_dot_product_attention(
            queries, new.keys, new.values, attn_mask=seen, is_causal=causal
        )
        mixed = self.out(mixed.transpose(1, 2).reshape(-1, width))
        return self.feed_forward(flat + mixed).view(batch, time, width), new


def part_of(state: SequenceState, index: int) -> KeyValueCache:
    """A layer's cache."""
    cache = state.layers[index]
    assert isinstance(cache, KeyValueCache)
    return cache

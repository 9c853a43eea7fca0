"""A step's tokens: what actions are conditioned on, the timestep embedding, the initial weights.

With the condition `target` a step is (return-to-go, observation, action): the user asks for a
return. With `max-return` it is (observation, return-to-go, action), after Reinformer (Zhuang et al.
2024, arXiv 2405.08740): the agent predicts the return-to-go from the observation and the past,
close to the largest that the data hold there, and acts on its own prediction. With `goal` it is
(goal, observation, action): the goal is the observation's part `desired_goal`, in training one that
was achieved later (`aaren_rl.data.hindsight`), in acting the environment's.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from aaren_rl.agents.config import AgentConfig, Condition
from aaren_rl.layers.start import STD, start_linear

TokenKind = Literal["return", "goal", "observation", "action"]
CHUNKS: dict[Condition, tuple[tuple[TokenKind, ...], ...]] = {
    "target": (("action", "return", "observation"),),
    "max-return": (("action", "observation"), ("return",)),
    "goal": (("action", "goal", "observation"),),
}
"""The tokens that one step of acting reads, chunk after chunk.

`action` is the previous step's. The return of a chunk that stands alone is predicted from the last
features of the chunk before; the action is read from the last features of the last chunk.
"""


def expectile_loss(predictions: Tensor, wanted: Tensor, expectile: float) -> Tensor:
    """Squared errors weighted by their sign: `|expectile - 1(error < 0)| error^2`, elementwise.

    The error is `wanted - predictions`, of any shape. The constant with the smallest mean loss over
    samples is their expectile: the mean for 0.5, and the largest sample in the limit of 1.
    """
    errors = wanted - predictions
    return torch.where(errors < 0, 1 - expectile, expectile) * errors.square()


class SinusoidalEmbedding(nn.Module):
    """The Transformer's fixed sines and cosines (Vaswani et al. 2017), defined at every step."""

    frequencies: Tensor

    def __init__(self, width: int) -> None:
        super().__init__()
        exponents = torch.arange(0, width, 2, dtype=torch.float64) / width
        # Not saved: a function of the width. float64, since at step 1e6 float32 is too coarse.
        self.register_buffer("frequencies", torch.exp(-math.log(1e4) * exponents), persistent=False)

    def forward(self, timesteps: Tensor) -> Tensor:
        """`[...]` int64 to `[..., width]` float32."""
        angles = timesteps[..., None].to(self.frequencies.dtype) * self.frequencies
        return torch.cat([angles.sin(), angles.cos()], dim=-1).float()


class NoEmbedding(nn.Module):
    """No timestep embedding."""

    def forward(self, timesteps: Tensor) -> Tensor:
        """`[...]` to zeros `[..., 1]`, which broadcast."""
        return torch.zeros(*timesteps.shape, 1, device=timesteps.device)


TIMESTEP_EMBEDDINGS = (nn.Embedding, SinusoidalEmbedding, NoEmbedding)


def timestep_embedding(config: AgentConfig) -> nn.Module:
    """The module that `config.timestep_embedding` names."""
    if config.timestep_embedding == "learned":
        return nn.Embedding(config.max_episode_length, config.width)
    if config.timestep_embedding == "sinusoidal":
        return SinusoidalEmbedding(config.width)
    return NoEmbedding()


def start_embeddings(start: str, modules: Iterable[nn.Module], kept: tuple[nn.Module, ...]) -> None:
    """Draw the weights of `modules`, outside the sequence model; see `AgentConfig.embedding_start`.

    By default the timestep table starts at 0.02: at PyTorch's standard deviation of 1 the norm
    after the sum leaves a token that is nearly all random time and hardly any observation. The
    linear embeddings `kept` keep PyTorch's start, with biases, unless `start` is `gpt2`: the norm
    divides a token by its length, so that without a bias returns of 1 and of 3 would be the same.
    """
    if start == "original":
        return
    for module in modules:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=STD)
        elif isinstance(module, nn.Linear) and (start == "gpt2" or module not in kept):
            start_linear(module)

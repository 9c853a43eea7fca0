"""How a token learns its time in the episode, and how embeddings begin."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor, nn

from aaren_rl.agents.config import AgentConfig
from aaren_rl.layers.start import STD, start_linear


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
    """No notion of time beyond the order of tokens."""

    def forward(self, timesteps: Tensor) -> Tensor:
        """`[...]` to zeros `[..., 1]`, which broadcast."""
        return torch.zeros(*timesteps.shape, 1, device=timesteps.device)


def timestep_embedding(config: AgentConfig) -> nn.Module:
    """The module that `config.timestep_embedding` names."""
    if config.timestep_embedding == "learned":
        return nn.Embedding(config.max_episode_length, config.width)
    if config.timestep_embedding == "sinusoidal":
        return SinusoidalEmbedding(config.width)
    return NoEmbedding()


def start_embeddings(start: str, modules: Iterable[nn.Module], kept: tuple[nn.Module, ...]) -> None:
    """Draw the weights outside the sequence model; see `AgentConfig.embedding_start`.

    By default the timestep table begins at 0.02: at PyTorch's standard deviation of 1 the norm
    after the sum leaves a token that is nearly all random time and hardly any observation. The
    linear embeddings keep PyTorch's start, with biases: the norm divides a token by its length,
    so that without a bias a return of 1 and one of 3 would look alike.

    Args:
        start: the setting.
        modules: embeddings and heads; changed in place, one after the other.
        kept: linear embeddings among them, left alone unless `start` is `gpt2`.
    """
    if start == "original":
        return
    for module in modules:
        if isinstance(module, nn.Embedding):
            nn.init.normal_(module.weight, std=STD)
        elif isinstance(module, nn.Linear) and (start == "gpt2" or module not in kept):
            start_linear(module)

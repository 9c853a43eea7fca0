"""How a token learns its time in the episode."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from aaren_rl.agents.config import AgentConfig


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

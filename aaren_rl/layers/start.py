"""GPT-2's start of a linear layer, shared by the mixers and the feed-forward parts."""

from __future__ import annotations

import math

from torch import nn

STD = 0.02
"""Standard deviation of GPT-2's weights at the start (Radford et al. 2019)."""


def start_linear(layer: nn.Linear, std: float = STD) -> None:
    """Draw the weights of a linear layer from N(0, std^2) and set its biases to zero.

    Args:
        layer: changed in place.
        std: standard deviation of the weights.
    """
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)


def residual_std(layers: int) -> float:
    """Standard deviation of the weights that write to the residual stream, as in GPT-2.

    Every block adds two branches to the stream. With weights smaller by sqrt(2 layers) the stream's
    variance at the start does not grow with the number of blocks.

    Args:
        layers: number of blocks, at least 1.
    """
    return STD / math.sqrt(2 * layers)

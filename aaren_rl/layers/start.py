"""GPT-2's initial weights of a linear layer, for mixers and feed-forward parts."""

from __future__ import annotations

from torch import nn

STD = 0.02
"""Standard deviation of GPT-2's weights at the start (Radford et al. 2019)."""


def start_linear(layer: nn.Linear, std: float = STD) -> None:
    """Draw the weights of a linear layer from N(0, std^2) and set its biases to zero, in place."""
    nn.init.normal_(layer.weight, std=std)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)

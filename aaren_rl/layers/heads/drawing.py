"""What the heads with a distribution share: drawing choices, and an entropy that is kept up."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

DUAL_SCALE = 1e-3


def draw(logits: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
    """Choices `[...]`, int64, by `softmax(logits / temperature)` of logits `[..., choices]`.

    Args:
        logits: as the network gives them.
        temperature: positive.
        generator: where the random numbers come from; on the logits' device.
    """
    logits = logits.float()
    logits = (logits - logits.amax(-1, keepdim=True)) / temperature  # no infinity, however cold
    chosen = torch.multinomial(logits.softmax(-1).flatten(0, -2), 1, generator=generator)
    return chosen.view(logits.shape[:-1])


class EntropyConstraint(nn.Module):
    """Keeps a policy's entropy at or above a target, as Online Decision Transformer does.

    Zheng et al. 2022 (arXiv 2202.05607), equations 4 to 6: the likelihood is maximised subject to
    `entropy >= target`. The Lagrange multiplier rises while the entropy is below the target and
    falls towards 0 while it is above. It is a parameter: the optimiser that trains the agent moves
    it, and it is saved with the weights.

    Args:
        weight: the multiplier at the start, positive.
        target: nats.

    Attributes:
        log_weight: logarithm of the multiplier.
        last: the entropy that was met last, a scalar; `None` before the first.
    """

    def __init__(self, weight: float, target: float) -> None:
        super().__init__()
        self.log_weight = nn.Parameter(torch.tensor(math.log(weight)))
        self.target = target
        self.last: Tensor | None = None

    def forward(self, entropy: Tensor) -> Tensor:
        """What is added to the loss: `-weight * entropy`, a scalar.

        The multiplier's own term has the value 0 and the gradient `entropy - target`, made small:
        the gradient's norm, by which all gradients are clipped, is not to depend on it, and Adam
        moves a parameter alike whatever the scale of its gradient is.

        Args:
            entropy: the mean over the steps of a batch, a scalar.
        """
        self.last = entropy.detach()
        multiplier = DUAL_SCALE * self.log_weight * (self.last - self.target)
        return multiplier - multiplier.detach() - self.log_weight.detach().exp() * entropy

    def logged(self) -> dict[str, float]:
        """Entropy and multiplier by the names of their metrics; empty before the first batch."""
        if self.last is None:
            return {}
        return {
            "entropy": float(self.last),
            "entropy_weight": float(self.log_weight.detach().exp()),
        }


def masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """The mean of `[batch, time]` over the steps where `mask` is true; 0 where there are none."""
    return (values * mask).sum() / mask.sum().clamp(min=1)

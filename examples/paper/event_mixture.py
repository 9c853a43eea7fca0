"""The predicted distribution of the next event: its time and its mark."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.special import log_ndtr

SHORTEST = 1e-6
"""Shortest time between two events, in mean times between events."""


@dataclass(frozen=True)
class Prediction:
    """For the event after each token: a mixture of log-normals, and logits.

    Attributes:
        log_weights: of the mixture's components, `[batch, events, components]`.
        means: of the log of the time to the next event, the same shape.
        scales: standard deviations of that log, the same shape.
        mark_logits: `[batch, events, marks]`.
    """

    log_weights: Tensor
    means: Tensor
    scales: Tensor
    mark_logits: Tensor

    def at(self, rows: Any, events: Any) -> Prediction:
        """The predictions after some of the events."""
        return Prediction(*(value[rows, events] for value in vars(self).values()))

    def log_density(self, gaps: Tensor) -> Tensor:
        """Of the times to the next event, `[batch, events]`."""
        logs = gaps.clamp_min(SHORTEST).log()[..., None]
        normal = -0.5 * ((logs - self.means) / self.scales) ** 2 - self.scales.log()
        constant = 0.5 * math.log(2 * math.pi)
        return (self.log_weights + normal).logsumexp(-1) - logs[..., 0] - constant

    def log_survival(self, gaps: Tensor) -> Tensor:
        """Log probability that nothing happens for so long, `[batch, events]`."""
        z = (gaps.clamp_min(SHORTEST).log()[..., None] - self.means) / self.scales
        return (self.log_weights + log_ndtr(-z)).logsumexp(-1)

    def mean_gap(self, longest: float) -> Tensor:
        """The mean time to the next event, given that it is not above `longest`, `[batch, events]`.

        The mean of a log-normal is exp(mean + scale^2 / 2). A wide component has nearly all of it
        in times that no data have, so it is cut at the longest time that was seen in training.
        """
        z = (math.log(longest) - self.means) / self.scales
        below = (self.log_weights + log_ndtr(z)).logsumexp(-1)
        whole = self.log_weights + self.means + 0.5 * self.scales**2
        return ((whole + log_ndtr(z - self.scales)).logsumexp(-1) - below).exp()

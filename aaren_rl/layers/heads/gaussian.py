"""The heads of a Box with a distribution: one Gaussian, or a mixture of several, behind a tanh."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from aaren_rl.errors import UserError
from aaren_rl.layers.heads.base import EntropyConstraint, draw, masked_mean, register_head
from aaren_rl.layers.heads.plain import ContinuousActions

HALF_LOG_TAU = 0.5 * math.log(2 * math.pi)
APART = 0.5
"""Standard deviation of the components' means at the start: equal ones would long stay equal."""


@dataclass(frozen=True)
class GaussianOptions:
    """Options of the head `tanh-gaussian`."""

    log_std_min: float = -5.0
    """Lowest logarithm of the standard deviation, before the tanh."""
    log_std_max: float = 2.0
    """Highest one."""
    margin: float = 0.01
    """Actions at a bound are learned from as if they were this far inside, in units in which the
    space is [-1, 1]: a tanh never reaches its bounds, and the closer to them, the further away they
    lie before it (docs/acting.md). Online Decision Transformer's is 1e-6."""
    entropy_weight: float = 0.1
    """Start of the multiplier of the entropy, which is learned; 0 for no entropy in the loss."""
    target_entropy: float | None = None
    """Nats below which the entropy is not to fall; by default minus the numbers of an action."""

    def check(self) -> None:
        """Raise `UserError` for a value that cannot work."""
        if not -20 <= self.log_std_min < self.log_std_max <= 20:
            raise UserError(
                "--head-options.log-std-min must be below log-std-max, both in [-20, 20], got "
                f"{self.log_std_min:g} and {self.log_std_max:g}"
            )
        if not 1e-7 <= self.margin < 1:  # float32 holds no number between 1 - 6e-8 and 1
            raise UserError(f"--head-options.margin must be in [1e-7, 1), got {self.margin:g}")
        if not 0 <= self.entropy_weight < math.inf:
            raise UserError(
                "--head-options.entropy-weight must be finite and not negative, got "
                f"{self.entropy_weight:g}"
            )
        if self.target_entropy is not None and not math.isfinite(self.target_entropy):
            raise UserError(
                f"--head-options.target-entropy must be finite, got {self.target_entropy}"
            )


@dataclass(frozen=True)
class MixtureOptions(GaussianOptions):
    """Options of the head `gaussian-mixture`."""

    components: int = 5
    """Gaussians of a mixture."""

    def check(self) -> None:
        """As `GaussianOptions.check`."""
        super().check()
        if self.components < 1:
            raise UserError(f"--head-options.components must be at least 1, got {self.components}")


class Parts(NamedTuple):
    """A prediction's components.

    Attributes:
        logits: `[..., components]`.
        means: before the tanh, `[..., components, size]`.
        log_stds: as `means`.
    """

    logits: Tensor
    means: Tensor
    log_stds: Tensor


class GaussianActions(ContinuousActions):
    """A Gaussian before a tanh: `action = tanh(x)`, `x ~ N(mean, std)`, in the network's units.

    The log-density of an action, in the units `(action - middle) / reach`, is that of `x` minus the
    logarithm of the tanh's slope, `2 (log 2 - x - softplus(-2 x))`: exact where `1 - tanh(x)^2` is
    0 in float32. Where the space has a side without a bound, or is `unbound`, there is no tanh, and
    `x` is the standardised action.

    The decision is the mean action, of a mixture that of its most likely component. Not
    `tanh(mean)`, which is the median: where the data hold actions at their bounds, far out before
    the tanh, it lies further from the data (docs/acting.md).

    Args:
        space: a Box.
        settings: fields of `GaussianOptions`.
    """

    kind: type[GaussianOptions] = GaussianOptions
    samples = True
    apart: Tensor

    def __init__(self, space: Any, **settings: Any) -> None:
        super().__init__(space)
        self.options = self.kind(**settings)
        self.options.check()
        self.components: int = getattr(self.options, "components", 1)
        start = torch.Generator().manual_seed(0)
        apart = APART * torch.randn(self.components, self.size, generator=start)
        self.register_buffer("apart", apart if self.components > 1 else 0 * apart, persistent=False)
        self.constraint: EntropyConstraint | None = None
        if self.options.entropy_weight > 0:
            target = self.options.target_entropy
            self.constraint = EntropyConstraint(
                self.options.entropy_weight, -float(self.size) if target is None else target
            )

    @property
    def outputs(self) -> int:
        """A logit for each component, and a mean and a spread for each of its numbers."""
        return self.components * (1 + 2 * self.size)

    def head(self, width: int) -> nn.Module:
        """See `ActionHead.head`: no tanh at its end."""
        return nn.Linear(width, self.outputs)

    def parts(self, predictions: Tensor) -> Parts:
        """The distributions that predictions `[..., outputs]` describe.

        Spreads are led between their limits by a tanh, so that there is a gradient everywhere.
        """
        shape = (self.components, self.size)
        numbers = math.prod(shape)
        given = predictions.float().split([self.components, numbers, numbers], dim=-1)
        means, spreads = (each.unflatten(-1, shape) for each in given[1:])
        low, high = self.options.log_std_min, self.options.log_std_max
        log_stds = low + (high - low) / 2 * (spreads.tanh() + 1)
        return Parts(given[0], means + self.apart, log_stds)

    def decide(self, predictions: Tensor) -> Tensor:
        """The mean action of the most likely component, `[..., size]`."""
        logits, means, log_stds = self.parts(predictions)
        if self.components > 1:
            likeliest = logits.argmax(-1)
            mean, log_std = _of_component(means, likeliest), _of_component(log_stds, likeliest)
        else:
            mean, log_std = means[..., 0, :], log_stds[..., 0, :]
        if self.bounded:  # MacKay 1992: the mean of tanh(x), to within 0.035
            mean = mean / (1 + math.pi / 2 * (2 * log_std).exp()).sqrt()
        return super().decide(self._squashed(mean))

    def sample(self, predictions: Tensor, temperature: float, generator: torch.Generator) -> Tensor:
        """See `ActionHead.sample`: the spreads are multiplied by the temperature."""
        logits, means, log_stds = self.parts(predictions)
        chosen = draw(logits, temperature, generator)
        mean, log_std = _of_component(means, chosen), _of_component(log_stds, chosen)
        noise = torch.randn(mean.shape, generator=generator, device=mean.device)
        return super().decide(self._squashed(mean + temperature * log_std.exp() * noise))

    def log_prob(self, predictions: Tensor, actions: Tensor) -> Tensor:
        """Log-density, nats, `[...]`, of the environment's numbers `[..., size]`."""
        x = self.encode(actions)
        if self.bounded:
            x = x.clamp(-1 + self.options.margin, 1 - self.options.margin).atanh()
        return self._log_density(self.parts(predictions), x)

    def entropy(self, predictions: Tensor) -> Tensor:
        """An estimate of the entropy, nats, `[...]`, from one draw of each component.

        It has no closed form. The draws are reparametrised and weighted by the components'
        probabilities, so that the expectation of its gradient is the entropy's gradient.
        """
        logits, means, log_stds = self.parts(predictions)
        draws = means + log_stds.exp() * torch.randn_like(means)
        rows = Parts(logits[..., None, :], means[..., None, :, :], log_stds[..., None, :, :])
        return -(logits.softmax(-1) * self._log_density(rows, draws)).sum(-1)

    def loss(self, predictions: Tensor, actions: Tensor, mask: Tensor) -> Tensor:
        """Mean negative log-likelihood, nats; in training less the weighted entropy."""
        loss = -masked_mean(self.log_prob(predictions, actions), mask)
        if self.constraint is None or not self.training:
            return loss
        return loss + self.constraint(masked_mean(self.entropy(predictions), mask))

    def logged(self) -> dict[str, float]:
        """See `ActionHead.logged`."""
        return {} if self.constraint is None else self.constraint.logged()

    def _squashed(self, x: Tensor) -> Tensor:
        return x.tanh() if self.bounded else x

    def _log_density(self, parts: Parts, x: Tensor) -> Tensor:
        """Of `x` `[..., size]`, numbers before the tanh, where they lie behind it: `[...]`."""
        scaled = (x[..., None, :] - parts.means) * (-parts.log_stds).exp()
        each = -(scaled.square() / 2 + parts.log_stds + HALF_LOG_TAU).sum(-1)
        density = (parts.logits.log_softmax(-1) + each).logsumexp(-1)
        if not self.bounded:
            return density
        return density - (2 * (math.log(2) - x - softplus(-2 * x))).sum(-1)


class GaussianMixture(GaussianActions):
    """A mixture of Gaussians before a tanh: for data in which one state has several good answers.

    Each component is a distribution of the whole action, its numbers independent of each other.
    Arguments as for `GaussianActions`, with the fields of `MixtureOptions`.
    """

    kind = MixtureOptions


def _of_component(values: Tensor, chosen: Tensor) -> Tensor:
    """Of `[..., components, size]` the chosen component's, `[..., size]`."""
    index = chosen[..., None, None].expand(*chosen.shape, 1, values.shape[-1])
    return values.gather(-2, index)[..., 0, :]


register_head("tanh-gaussian", GaussianActions, options=GaussianOptions)
register_head("gaussian-mixture", GaussianMixture, options=MixtureOptions)

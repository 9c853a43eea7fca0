"""One gradient update: batch, loss, gradient, optimiser; for one process or several."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any, Literal

import torch
from lightning_fabric import Fabric
from torch import Tensor, nn

from aaren_rl.agents import Agent, Carry
from aaren_rl.data import Sampler
from aaren_rl.errors import UserError
from aaren_rl.layers import SequenceState
from aaren_rl.training.checkpoint import (
    optimizer_tensors,
    parameter_names,
    restore_optimizer,
    with_prefix,
    without_prefix,
)
from aaren_rl.training.config import TrainConfig

OptimizerMaker = Callable[[Agent], torch.optim.Optimizer]
"""Makes the optimiser of an agent. Its learning rates are the peaks of the schedule."""
Schedule = Callable[[int], float]
"""From the number of updates done to the share of the peak learning rate."""
FLOOR = 0.1  # of the peak, at the end of a cosine


class Learner:
    """Makes the updates of an agent, whose `forward` gives the loss.

    Args:
        config: all settings.
        agent: trained in place.
        sampler: gives the batches of this process.
        fabric: launched already.
        optimizer: makes the optimiser; AdamW as `config` says when `None`.
        schedule: of the learning rate; as `config` says when `None`.
    """

    def __init__(
        self,
        config: TrainConfig,
        agent: Agent,
        sampler: Sampler,
        fabric: Fabric,
        optimizer: OptimizerMaker | None = None,
        schedule: Schedule | None = None,
    ) -> None:
        self.config, self.agent, self.sampler, self.fabric = config, agent, sampler, fabric
        self.optimizer: torch.optim.Optimizer = (
            make_optimizer(agent, config.learning_rate, config.weight_decay)
            if optimizer is None
            else own_optimizer(agent, optimizer)
        )
        self._peaks = [group["lr"] for group in self.optimizer.param_groups]
        self._names = parameter_names(agent, self.optimizer)
        self._module, self._wrapped = fabric.setup(agent, self.optimizer)
        self._schedule = schedule or (
            lambda n: learning_rate_factor(n, config.updates, config.warmup, config.schedule)
        )
        self._carry = Carry() if config.sampling == "streams" else None
        self.last_loss = torch.tensor(math.nan)
        self._tokens = 0  # real ones, since the last `tokens_per_second`
        self._seconds = 0.0

    def step(self, update: int) -> Any:
        """Train on the next batch, after `update` updates; gives the gradient's unclipped norm."""
        start = time.perf_counter()
        factor = self._schedule(update)
        for group, peak in zip(self.optimizer.param_groups, self._peaks, strict=True):
            group["lr"] = peak * factor
        batch = self.sampler.sample()
        steps = int(batch.mask.sum())  # before it moves: no waiting
        self._tokens += self.agent.tokens_per_step * steps
        batch = batch.to(self.fabric.device)
        loss = self._module(batch) if self._carry is None else self._module(batch, self._carry)
        loss = self._weighted(loss, steps)
        self.fabric.backward(loss)
        norm = self.fabric.clip_gradients(
            self._module,
            self._wrapped,
            max_norm=self.config.gradient_clip,
            error_if_nonfinite=False,
        )
        self._wrapped.step()
        self.optimizer.zero_grad(set_to_none=True)
        self.last_loss = loss.detach()
        self._seconds += time.perf_counter() - start
        return norm

    @property
    def learning_rate(self) -> float:
        """Learning rate of the last update, of the optimiser's first group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def _weighted(self, loss: Tensor, steps: int) -> Tensor:
        """The loss, weighted so that DDP's mean over processes is the mean over all their steps."""
        if self.fabric.world_size == 1:
            return loss
        mean = self.fabric.all_reduce(torch.tensor(float(steps)), reduce_op="mean")
        assert isinstance(mean, Tensor)
        return loss * (steps / mean.clamp(min=1)).to(loss.device)

    def loss_over_all(self) -> float:
        """The loss of the last batch, of all processes together."""
        mean = self.fabric.all_reduce(self.last_loss.clone(), reduce_op="mean")  # in place
        assert isinstance(mean, Tensor)
        return float(mean)

    def metrics(self) -> dict[str, float]:
        """Further scalars of the last update, by tag."""
        return {f"training/{name}": v for name, v in self.agent.actions.logged().items()}

    def tokens_per_second(self) -> float:
        """Speed of all processes together since the last call, by the time inside `step`."""
        tokens, seconds = self._tokens * self.fabric.world_size, self._seconds
        self._tokens, self._seconds = 0, 0.0
        return tokens / seconds if seconds > 0 else 0.0

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Tensors of a checkpoint: the optimiser's, equal in all processes, and this process's."""
        own: dict[str, Tensor] = {}
        if self._carry is not None and self._carry.state is not None:
            own = with_prefix("carry.", self._carry.state.tensors())
        return optimizer_tensors(self.optimizer, self._names), own

    def restore(self, shared: dict[str, Tensor], own: dict[str, Tensor]) -> None:
        """The inverse of `tensors`; other tensors are ignored."""
        restore_optimizer(self.optimizer, self._names, shared)
        carried = without_prefix("carry.", own)
        if carried and self._carry is not None:
            moved = {name: tensor.to(self.fabric.device) for name, tensor in carried.items()}
            self._carry.state = SequenceState.from_tensors(self.agent.state_types, moved)


def decayed(name: str, parameter: nn.Parameter) -> bool:
    """Whether weight decay pulls a parameter, named as in the agent, towards zero.

    It does for the matrices of the blocks and of the head. It would change what biases, norms'
    gains and Aaren's query token mean; embeddings are followed by a norm, which undoes it.
    """
    return parameter.dim() >= 2 and not name.startswith("embed_")


def make_optimizer(
    agent: nn.Module, learning_rate: float, weight_decay: float
) -> torch.optim.AdamW:
    """AdamW in two groups, with and without (decoupled) weight decay."""
    named = list(agent.named_parameters())
    groups = [[p for n, p in named if decayed(n, p) is wanted] for wanted in (True, False)]
    return torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for group, decay in zip(groups, (weight_decay, 0.0), strict=True)
            if group
        ],
        lr=learning_rate,
        fused=True,
    )


def own_optimizer(agent: Agent, make: OptimizerMaker) -> torch.optim.Optimizer:
    """What a user's function makes of the agent; `UserError` when it is no optimiser."""
    if isinstance(make, type) or not callable(make):
        given = f"the class {make.__name__}" if isinstance(make, type) else type(make).__name__
        raise UserError(
            f"optimizer: a function of the agent expected, such as lambda agent: "
            f"torch.optim.AdamW(agent.parameters(), 1e-3); got {given}"
        )
    made = make(agent)
    if not isinstance(made, torch.optim.Optimizer):
        raise UserError(f"optimizer: the function gave {type(made).__name__}, not an optimiser")
    return made


def learning_rate_factor(
    update: int, updates: int, warmup: float, schedule: Literal["cosine", "constant"]
) -> float:
    """Share of the peak learning rate at an update (from 0) of `updates`, in (0, 1].

    It rises linearly over the share `warmup` of the updates, then falls by a cosine to `FLOOR`, or
    stays.
    """
    rising = round(warmup * updates)
    if update < rising:
        return (update + 1) / rising
    if schedule == "constant":
        return 1.0
    progress = (update - rising) / max(1, updates - rising)
    return FLOOR + (1 - FLOOR) * 0.5 * (1 + math.cos(math.pi * min(1.0, progress)))

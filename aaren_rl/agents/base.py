"""What every agent is: a module with a loss, a policy, and a folder that it can be saved to."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.acting import Policy
from aaren_rl.agents.actions import action_codec
from aaren_rl.agents.config import AgentConfig, Condition, Mode
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.data.sampling import Batch
from aaren_rl.errors import UserError
from aaren_rl.layers import SequenceState
from aaren_rl.files import write_json, write_tensors

WEIGHTS_FILE, CARD_FILE, FORMAT = "agent.safetensors", "agent.json", 1


class Carry:
    """Where the state waits between the batches of a stream (`aaren_rl.data.StreamSampler`).

    Not a value but a place, since the training step, wrapped by Fabric, returns the loss alone.

    Args:
        detach: cut the state off from the graph after each batch: truncated back-propagation
            through time. Without it the gradient flows back through all batches so far.
    """

    def __init__(self, detach: bool = True) -> None:
        self.detach = detach
        self.state: SequenceState | None = None

    def put(self, state: SequenceState | None) -> None:
        """Keep the state after a batch."""
        self.state = state.detach() if self.detach and state is not None else state


class Agent(nn.Module, ABC):
    """A policy learned from data, with all that acting needs: spaces, scales, statistics.

    Args:
        config: the agent's shape.
        spec: the task.
        observation_mean: `[observation_size]`; observations are standardised by it.
        observation_std: `[observation_size]`, positive. Without it observations stay as they are,
            and `config.observation_clip`, which counts standard deviations, becomes infinite.
    """

    name: ClassVar[str]
    has_memory: ClassVar[bool] = False
    """Whether an action depends on earlier steps, so that there are modes to choose from."""
    asks_return: bool = False
    """Whether it can be asked for a return; of an instance, also by its `config.condition`."""
    tokens_per_step: ClassVar[int] = 1
    """Vectors that its body reads of each environment step."""
    modes: ClassVar[tuple[Mode, ...]] = ("carry", "reset", "window")
    default_mode: ClassVar[Mode] = "carry"
    observation_mean: Tensor
    observation_std: Tensor

    def __init__(
        self,
        config: AgentConfig,
        spec: AgentSpec,
        observation_mean: np.ndarray | None = None,
        observation_std: np.ndarray | None = None,
    ) -> None:
        super().__init__()
        config.check()
        if observation_std is None:
            config = dataclasses.replace(config, observation_clip=math.inf)
        self.config, self.spec = config, spec
        size = spec.observation_size
        mean = np.zeros(size) if observation_mean is None else observation_mean
        std = np.ones(size) if observation_std is None else observation_std
        self.register_buffer("observation_mean", torch.tensor(mean, dtype=torch.float32))
        self.register_buffer("observation_std", torch.tensor(std, dtype=torch.float32))
        self.actions = action_codec(spec.action_space)

    def normalise(self, observations: Tensor) -> Tensor:
        """Standardise observations `[..., observation_size]`, and clip them."""
        standardised = (observations - self.observation_mean) / self.observation_std
        clip = self.config.observation_clip
        return standardised if math.isinf(clip) else standardised.clamp(-clip, clip)

    def observation_bounds(self) -> tuple[Tensor, Tensor] | None:
        """Where `normalise` clips, in raw numbers: lowest and highest, float32
        `[observation_size]` each; `None` where it does not."""
        clip = self.config.observation_clip
        if math.isinf(clip):
            return None
        reach = clip * self.observation_std
        return self.observation_mean - reach, self.observation_mean + reach

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Predictions for every step of a batch, `[batch, time, action_size]`."""

    def predict_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        """As `predict`, going on from a state; an agent without memory has none."""
        return self.predict(batch), None

    def loss_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        """The training loss (a scalar), going on from a state, and the state after the batch."""
        predictions, state = self.predict_from(batch, state)
        return self.actions.loss(predictions, batch.actions, batch.mask), state

    def forward(self, batch: Batch, carry: Carry | None = None) -> Tensor:
        """The training loss (a scalar): squared error, or cross-entropy for discrete actions.

        With the condition `max-return` the loss of the predicted returns is added to it.

        Args:
            batch: steps to learn from.
            carry: with a stream's batches, the state before this one; after the call, behind it.
        """
        loss, state = self.loss_from(batch, None if carry is None else carry.state)
        if carry is not None:
            carry.put(state)
        return loss

    loss = forward

    @classmethod
    def check_request(
        cls,
        mode: Mode | None = None,
        target_return: float | Sequence[float] | None = None,
        condition: Condition = "target",
    ) -> None:
        """Raise `UserError` for a mode or a target return that means nothing to this agent.

        Args:
            mode: as the user gave it; `None` for not at all.
            target_return: likewise; an empty sequence counts as not given.
            condition: the agent's, see `AgentConfig`.
        """
        known = cls.modes if cls.has_memory else get_args(Mode)
        if mode is not None and mode not in known:
            raise UserError(f"mode must be one of {', '.join(known)}, got {mode!r}")
        if mode is not None and not cls.has_memory:
            raise UserError(
                f"--mode {mode}: {cls.name} has no memory, so it acts in one way only; leave it out"
            )
        empty = target_return is None or (np.ndim(target_return) and not np.size(target_return))
        if not (empty or (cls.asks_return and condition == "target")):
            asked = " ".join(f"{value:g}" for value in np.atleast_1d(np.asarray(target_return)))
            what = f"{cls.name} with --condition {condition}" if cls.asks_return else cls.name
            raise UserError(
                f"--target-return {asked}: {what} cannot be asked for a return; leave it out"
            )

    @abstractmethod
    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
    ) -> Policy:
        """Start acting in `num_envs` environments. Puts the agent in evaluation mode.

        Args:
            num_envs: environments that step together.
            target_return: the return to ask for, one for all or one each; the agent's own first
                target when `None`.
            mode: `carry` (the state goes on from the episode's start), `reset` (it starts afresh
                every context length), `window` (recompute the last context at every step) or, for
                a Transformer alone, `sliding` (a cache of the last context, each token as it was
                computed when it was new); `default_mode` when `None`.

        Raises:
            UserError: for an unknown mode, or for a mode or a target return where the agent has no
                memory or cannot be asked for a return.
        """

    def check_horizon(self, steps: int, what: str) -> None:
        """Raise `UserError` when the agent cannot live through `steps` steps of `what`."""

    @property
    def num_parameters(self) -> int:
        """How many numbers are trained."""
        return sum(parameter.numel() for parameter in self.parameters())

    def save(self, folder: Path | str) -> None:
        """Write the weights (safetensors) and the agent's card (JSON), each whole or not at all."""
        folder = Path(folder)
        write_tensors(folder / WEIGHTS_FILE, self.state_dict())
        card = {
            "format": FORMAT,
            "agent": self.name,
            "config": self.config.to_json(),
            "spec": self.spec.to_json(),
        }
        write_json(folder / CARD_FILE, card)

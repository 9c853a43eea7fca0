"""The base of every agent: a module with a loss, a policy, and a folder that it can be saved to."""

from __future__ import annotations

import copy
import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self, TypeVar, get_args

import numpy as np
import torch
from torch import Tensor, nn

from aaren_rl.acting import Policy, check_count, table_too_short
from aaren_rl.agents.config import AgentConfig, Condition, Mode
from aaren_rl.agents.registration import AGENTS, registered_name
from aaren_rl.agents.spec import AgentSpec
from aaren_rl.data.sampling import Batch
from aaren_rl.errors import UserError
from aaren_rl.files import write_card, write_tensors
from aaren_rl.layers import SequenceState, head_name, make_head, sees_images
from aaren_rl.layers.start import STD
from aaren_rl.registry import REGISTRIES

if TYPE_CHECKING:
    from aaren_rl.agents.policy import AgentPolicy

WEIGHTS_FILE, CARD_FILE, FORMAT = "agent.safetensors", "agent.json", 1
R = TypeVar("R")


@dataclass
class Carry:
    """The state between the batches of a stream (`aaren_rl.data.StreamSampler`).

    A mutable holder, since the training step, wrapped by Fabric, returns the loss alone.

    Args:
        detach: cut the state off from the graph after each batch: truncated back-propagation
            through time. Without it the gradient flows back through all batches so far.
        state: the state after the last batch.
    """

    detach: bool = True
    state: SequenceState | None = None


class Agent(nn.Module, ABC):
    """A policy learned from data, with all that acting needs: spaces, scales, statistics.

    A subclass with a loss of its own overrides `loss(batch)`, and calls `predict` (or, of a
    `DecisionAgent`, `features`) in it. On streams these continue from the carried state.
    It overrides `loss_from(batch, state)` instead when it needs the state in hand.

    Args:
        config: the agent's shape.
        spec: the task.
        observation_mean: `[observation_size]`; observations are standardised by it.
        observation_std: `[observation_size]`, positive. Without it observations stay as they are,
            and `config.observation_clip`, which counts standard deviations, becomes infinite.

    Attributes:
        name: what the agent is called in tables; for a registered class the registered name.
        has_memory: whether an action depends on earlier steps, so that there are modes.
        asks_return: whether it can be asked for a return; of an instance, also by its condition.
        predicts_return: whether it predicts the return that it acts on.
        tokens_per_step: vectors that its body reads of each environment step.
        modes: its ways of acting.
        default_mode: the one of them that is used when nothing is said.
        options: the dataclass that the agent was registered with, filled from
            `config.agent_options`; `None` without one.
    """

    name: str = "agent"
    has_memory: ClassVar[bool] = False
    asks_return: bool = False
    predicts_return: bool = False
    tokens_per_step: ClassVar[int] = 1
    modes: tuple[Mode, ...] = ("carry", "reset", "window")
    default_mode: Mode = "carry"
    options: Any = None
    observation_mean: Tensor
    observation_std: Tensor
    kept: Tensor | None

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
        images = sees_images(config.encoder)
        kept = spec.observation_layout.mask(lambda leaf: leaf.tabled or (images and leaf.is_image))
        # Choices, and the pixels that an encoder of images takes as they are; None for none.
        self.register_buffer("kept", torch.from_numpy(kept) if kept.any() else None, False)
        self._keeps_all = bool(kept.all())
        how = config.head, config.head_options, config.action_chunk
        self.actions = make_head(spec.action_space, *how, spec.wide_actions)
        registered = registered_name(type(self))
        settings = AGENTS.options(registered, config.agent_options) if registered else {}
        if registered and (kind := AGENTS[registered].options) is not None:
            self.options = kind(**settings)
        self.embed_task: nn.Embedding | None = None
        if spec.tasks and config.task_embedding:
            self.embed_task = nn.Embedding(len(spec.tasks), config.width)
            nn.init.normal_(self.embed_task.weight, std=STD)
        self._stream: Carry | None = None  # set during a training step on a stream
        self._after: SequenceState | None = None  # the state after that step's batch

    def task_vector(self, tasks: Tensor | None = None) -> Tensor | None:
        """The vector of `--task-embedding`, `[..., width]`; `None` without it.

        `tasks` are int64 numbers of the tasks, `[...]`; the agent's own task when `None`, with a
        `UserError` if none is set.
        """
        if self.embed_task is None:
            return None
        if tasks is not None:
            out: Tensor = self.embed_task(tasks)
            return out
        return self.embed_task.weight[self.spec.of_task(self.spec.task).task]

    def for_task(self, task: str | int) -> Self:
        """The agent in one of its tasks, by the dataset's name or number; it shares the weights.

        It has that task's scales, targets and environment, and acts, is saved, evaluated and
        exported like an agent of that task alone. `UserError` for an unknown task.
        """
        agent = copy.copy(self)
        agent.spec = self.spec.of_task(task)
        return agent

    def check_task(self) -> None:
        """Raise `UserError` for an agent of several tasks of which none is set."""
        if self.spec.tasks:
            self.spec.of_task(self.spec.task)

    def normalise(self, observations: Tensor) -> Tensor:
        """Standardise observations `[..., observation_size]`, and clip them.

        Choices, and images for an encoder of images, stay as they are.
        """
        if self._keeps_all:
            return observations
        standardised = (observations - self.observation_mean) / self.observation_std
        clip = self.config.observation_clip
        if clip <= torch.finfo(torch.float32).max:
            standardised = standardised.clamp(-clip, clip)
        if self.kept is None:
            return standardised
        return torch.where(self.kept, observations.to(standardised.dtype), standardised)

    def exactly(self, embed: nn.Module, numbers: Tensor) -> Tensor:
        """`embed(numbers)` in float32, also under autocast.

        bfloat16 has 8 bits: there, returns-to-go of 3600 and 3594 are one number, and acting, which
        is in float32, would show the agent numbers that it has not been trained on. Images, whose
        numbers have 8 bits themselves, are encoded in autocast's dtype.
        """
        device = numbers.device.type
        out: Tensor
        if sees_images(self.config.encoder) or not torch.is_autocast_enabled(device):
            out = embed(numbers)
        else:
            with torch.autocast(device, enabled=False):
                out = embed(numbers)
        return out

    def observation_bounds(self) -> tuple[Tensor, Tensor] | None:
        """Where `normalise` clips, in raw numbers; `None` where it does not.

        Returns:
            Lowest and highest, float32 `[observation_size]` each.
        """
        clip = self.config.observation_clip
        if math.isinf(clip):
            return None
        reach = clip * self.observation_std
        return self.observation_mean - reach, self.observation_mean + reach

    @property
    def horizon(self) -> int | None:
        """Steps after which an episode must have ended; `None` for no end."""
        return None

    @property
    def state_types(self) -> list[type]:
        """The class of each layer's state; empty without memory."""
        return []

    @abstractmethod
    def predict(self, batch: Batch) -> Tensor:
        """Predictions for every step of a batch, `[batch, time, action_size]`."""

    def predict_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        """As `predict`, continuing from a state; `None` for an agent without memory."""
        return self.predict(batch), None

    def loss(self, batch: Batch) -> Tensor:
        """The training loss, a scalar: what a subclass with its own loss overrides.

        Squared error, or cross-entropy for discrete actions; with the condition `max-return` plus
        the loss of the predicted returns.
        """
        return self._carried(self.loss_from, batch)

    def loss_from(
        self, batch: Batch, state: SequenceState | None
    ) -> tuple[Tensor, SequenceState | None]:
        """As `loss`, continuing from a state; also returns the state after the batch."""
        predictions, state = self.predict_from(batch, state)
        return self.actions.batch_loss(predictions, batch), state

    def forward(self, batch: Batch, carry: Carry | None = None) -> Tensor:
        """A training step's loss: `self.loss(batch)`.

        With a stream's batches `carry` holds the state before this batch, and after the call the
        state after it.
        """
        if carry is None:
            return self.loss(batch)
        self._stream = carry
        try:
            loss = self.loss(batch)
            state = self._after
            carry.state = state.detach() if carry.detach and state is not None else state
            return loss
        finally:
            self._stream = self._after = None

    def _carried(
        self,
        read: Callable[[Batch, SequenceState | None], tuple[R, SequenceState | None]],
        batch: Batch,
    ) -> R:
        """`read(batch, state)`; on a stream with the carried state, else with `None`."""
        if self._stream is None:
            return read(batch, None)[0]
        result, self._after = read(batch, self._stream.state)
        return result

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
        if mode is not None:
            check_mode(mode, cls.modes if cls.has_memory else get_args(Mode))
            if not cls.has_memory:
                raise UserError(
                    f"--mode {mode}: {cls.name} has no memory, so it acts in one way only; "
                    "leave it out"
                )
        empty = target_return is None or (np.ndim(target_return) and not np.size(target_return))
        if not (empty or (cls.asks_return and condition == "target")):
            asked = " ".join(f"{value:g}" for value in np.atleast_1d(np.asarray(target_return)))
            what = f"{cls.name} with --condition {condition}" if cls.asks_return else cls.name
            raise UserError(
                f"--target-return {asked}: {what} cannot be asked for a return; leave it out"
            )

    def policy(
        self,
        num_envs: int,
        target_return: float | Sequence[float] | None = None,
        mode: Mode | None = None,
        *,
        deterministic: bool = True,
        temperature: float = 1.0,
        seed: int = 0,
        task: str | int | None = None,
    ) -> Policy:
        """Start acting in `num_envs` environments. Puts the agent in evaluation mode.

        Args:
            num_envs: environments that step together.
            target_return: the return to ask for, one for all or one each; the agent's own first
                target when `None`.
            mode: `carry` (the state is carried from the episode's start), `reset` (it is cleared
                every context length), `window` (recompute the last context at every step) or, for
                a Transformer alone, `sliding` (a cache of the last context, each token as it was
                computed when it was new); `default_mode` when `None`.
            deterministic: take the mean action, of choices the most likely one; else draw from
                the predicted distribution.
            temperature: of the draws, positive: 1 for the distribution as it was learned, less for
                actions closer to its middle.
            seed: of the draws, which come from a generator of the policy's own.
            task: of an agent that has learned from several datasets: the name of one of them.

        Raises:
            UserError: for an unknown mode or any mode of an agent without memory; for a target
                return that is missing, not finite, not one for all or each environment, or that
                the agent cannot be asked for; for draws of an agent whose head predicts no
                distribution.
        """
        check_count("num_envs", num_envs)
        agent = self if task is None else self.for_task(task)
        agent.check_task()
        agent.eval()
        policy = agent._policy(num_envs, target_return, mode)
        if not deterministic:
            self.check_draws(temperature)
            policy.draw(temperature, seed)
        return policy

    def _policy(
        self, num_envs: int, target_return: float | Sequence[float] | None, mode: Mode | None
    ) -> AgentPolicy:
        """The policy before `draw`; a subclass defines this or overrides `policy`."""
        raise NotImplementedError(f"{type(self).__name__} defines neither `_policy` nor `policy`")

    def check_draws(self, temperature: float = 1.0) -> None:
        """Raise `UserError` where actions cannot be drawn, or not at this temperature."""
        if not self.actions.samples:
            name = self.config.head or head_name(self.spec.action_space)
            raise UserError(
                f"actions cannot be drawn: the action head {name!r} predicts one action and no "
                "distribution; train with --head tanh-gaussian or gaussian-mixture"
            )
        if not 0 < temperature < math.inf:
            raise UserError(f"--temperature must be positive and finite, got {temperature}")

    def check_horizon(self, steps: int, what: str) -> None:
        """Raise `UserError` when the timestep table is shorter than `what`, of `steps` steps."""
        if self.horizon is not None and steps > self.horizon:
            raise table_too_short(what, steps, self.horizon)

    @property
    def usual_target(self) -> float | None:
        """The return to ask for where any will do: its first target, else 0; `None` for none."""
        if not self.asks_return:
            return None
        return self.spec.target_returns[0] if self.spec.target_returns else 0.0

    @property
    def num_parameters(self) -> int:
        """Number of trained parameters."""
        return sum(parameter.numel() for parameter in self.parameters())

    def parts(self) -> dict[str, str]:
        """Registered names of the agent's parts, by kind; `module:Class` for an own class."""
        encoder = self.config.encoder
        head = self.config.head or head_name(self.spec.action_space)
        cls = type(self)
        name = registered_name(cls) or f"{cls.__module__}:{cls.__qualname__}"
        return {"agent": name, "encoder": encoder, "action head": head}

    def save(self, folder: Path | str) -> None:
        """Write the weights (safetensors) and the agent's card (JSON), each whole or not at all.

        The card names the modules of plug-ins, so that loading without them can ask for them.
        `UserError` when `folder` is a file.
        """
        folder = Path(folder)
        if folder.is_file():
            raise UserError(f"{folder}: a file; a folder for the agent expected")
        write_tensors(folder / WEIGHTS_FILE, self.state_dict())
        parts = self.parts()
        modules = {
            f"{kind} {name}": REGISTRIES[kind][name].module
            for kind, name in parts.items()
            if name in REGISTRIES[kind]
        }
        card = {
            "format": FORMAT,
            "agent": parts["agent"],
            "plugins": {k: m for k, m in modules.items() if not m.startswith("aaren_rl.")},
            "config": self.config.to_json(),
            "spec": self.spec.to_json(),
        }
        write_card(folder / CARD_FILE, card, [WEIGHTS_FILE], itself=False)


def check_mode(mode: str, known: Sequence[str]) -> None:
    """Raise `UserError` unless `mode` is one of the known modes."""
    if mode not in known:
        raise UserError(f"mode must be one of {', '.join(known)}, got {mode!r}")

"""One step of acting as a module of tensors: what a file of any format holds.

There are three: `AarenStep`, in which everything constant is multiplied out; `RecurrentStep`, the
agent's own layers, for any mixer whose state has a constant size; and `MemorylessStep`.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from aaren_rl.agents import Agent
from aaren_rl.agents.aaren_step import AarenStep
from aaren_rl.agents.policy import NEWEST
from aaren_rl.errors import UserError
from aaren_rl.layers import SequenceState
from aaren_rl.runtime import card

Carried = tuple[card.Tensor, float | str]
"""A tensor that goes from step to step, and what fills it at an episode's start."""


@dataclass(frozen=True)
class Step:
    """An agent's step.

    Attributes:
        module: takes `inputs` in this order and returns the tuple of `outputs`.
        inputs: the observation, the reward, and what is carried.
        outputs: the action, and what is carried.
        state: which output is which input of the next step, output -> input.
        reset_state: input -> what fills it at an episode's start, see `Card`.
    """

    module: nn.Module
    inputs: tuple[card.Tensor, ...]
    outputs: tuple[card.Tensor, ...]
    state: dict[str, str]
    reset_state: dict[str, float | str]


def step_of(agent: Agent) -> Step:
    """The step of an agent that is to be exported; the weights are copied.

    Raises:
        UserError: for an agent that has neither a state of constant size nor none, or whose
            observations are shifted in float64.
    """
    if agent.spec.observation_offset:
        raise UserError(
            f"{agent.name} cannot be exported: its observations are shifted in float64 before they "
            "become float32 (`observation_offset`), which an exported step does not do"
        )
    agent.eval()
    sequence: Any = agent  # of the mixers' agents, as its capabilities say
    needed = "embed_step" if agent.has_memory else "predict_step"
    if not hasattr(agent, needed):
        raise UserError(f"{agent.name} cannot be exported: it has no method `{needed}`")
    size, discrete = agent.spec.action_size, agent.spec.discrete
    action = _tensor(
        "action",
        "action as the environment takes it, inside its bounds; columns as aaren_rl.layout says"
        if agent.spec.in_parts
        else "action as the environment takes it, flattened, inside its bounds",
        1 if discrete else size,
        dtype="int64" if discrete else "float32",
    )
    observation = _tensor(
        "observation",
        "observation as the environment gives it, flattened"
        if agent.spec.observation_layout.is_box
        else "observation as columns, part after part, choices counted from 0",
        agent.spec.observation_size,
    )
    if not agent.has_memory:
        return Step(MemorylessStep(agent).eval(), (observation,), (action,), {}, {})
    module = AarenStep(sequence) if agent.folds else RecurrentStep(agent)
    layers = module.carried if isinstance(module, RecurrentStep) else _folded_state(module)
    carried = [*_clock(agent), *layers]
    previous = card.Tensor("previous_action", action.dtype, action.shape, "the last action")
    first = 0.0 if agent.spec.choices is None else float(agent.spec.choices[0])
    state = {f"new_{each.name}": each.name for each, _ in carried}
    return Step(
        module.eval(),
        (
            observation,
            _tensor("reward", "what the last action earned; at first 0", 1, dtype="float64"),
            previous,
            *(each for each, _ in carried),
        ),
        (action, *(_new(each) for each, _ in carried)),
        {"action": previous.name, **state},
        {previous.name: first, **{each.name: value for each, value in carried}},
    )


def _clock(agent: Agent) -> list[Carried]:
    meaning = "return still to be earned, before reward"
    if not agent.asks_return:
        meaning = "return on which the last action was taken, predicted by the step; not read"
    target: float | str = "target_return" if agent.asks_return else 0.0
    return [
        (_tensor("return_to_go", meaning, 1, dtype="float64"), target),
        (_tensor("timestep", "steps taken in this episode", 1, dtype="int64"), 0.0),
    ]


def _folded_state(step: AarenStep) -> list[Carried]:
    meanings = {
        "state": f"weighted sum of values ({step.dim} numbers) and sum of weights, of layer",
        "maximum": "highest score so far, of layer",
    }
    return [
        (_tensor(f"{name}_{index}", f"{meanings[name]} {index}", step.heads, size), value)
        for index in range(len(step.blocks))
        for name, size, value in step.layer_state
    ]


class MemorylessStep(nn.Module):
    """Raw observations to raw actions, for an agent without memory."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent: Any = _frozen(agent)

    def forward(self, observation: Tensor) -> tuple[Tensor]:
        """Observations `[batch, observation_size]` to actions `[batch, action_size or 1]`."""
        actions = self.agent.actions.decide(self.agent.predict_step(observation))
        return (actions if actions.dim() == 2 else actions[:, None],)


class RecurrentStep(nn.Module):
    """The step of a sequence agent through its own layers, with the layers' states as tensors.

    Args:
        agent: its mixers' states must be dataclasses of tensors `[batch, ...]`.

    Raises:
        UserError: when the state does not keep its size from step to step.
    """

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent = _frozen(agent)
        model: Any = self.agent.sequence_model
        for module in model.modules():
            if hasattr(module, "backend"):
                module.backend = "recurrent"  # is made of plain operations
        self.kinds: Sequence[type] = model.state_types
        after_one, after_two = self._states(batch=3)
        self.names = tuple(after_one)
        sizes = {name: tuple(tensor.shape) for name, tensor in after_one.items()}
        if sizes != {name: tuple(tensor.shape) for name, tensor in after_two.items()}:
            raise UserError(
                f"{agent.name} cannot be exported: its state grows with every step; an agent whose "
                "state has a constant size, or none, can"
            )
        # Filled with 0 by whoever acts: the step itself empties it.
        self.carried: list[Carried] = [
            (_layer_tensor(name, tensor), 0.0) for name, tensor in after_one.items()
        ]

    @torch.no_grad()
    def _states(self, batch: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """The state after one token and after two."""
        agent: Any = self.agent
        token = torch.zeros(batch, 1, agent.config.width)
        state = agent.read(token)[1]
        return state.tensors(), agent.read(token, state)[1].tensors()

    def forward(
        self,
        observation: Tensor,
        reward: Tensor,
        previous_action: Tensor,
        return_to_go: Tensor,
        timestep: Tensor,
        *state: Tensor,
    ) -> tuple[Tensor, ...]:
        """See `AarenStep.forward`; here the state is emptied where `timestep` is 0."""
        agent: Any = self.agent
        first, times = timestep[:, 0] == 0, timestep[:, 0]
        previous = previous_action[:, 0] if agent.spec.discrete else previous_action
        named = dict(zip(self.names, state, strict=True))
        past = SequenceState.from_tensors(self.kinds, named).reset(first)
        returns = return_to_go - reward
        tokens = agent.embed_step(0, previous, returns.float(), observation, times)
        # The first token is the previous action, which an episode's first step has not.
        mask = torch.cat([~first[:, None], torch.ones_like(tokens[:, 1:, 0], dtype=torch.bool)], 1)
        features, past = agent.read(tokens, past, mask, NEWEST)
        if not agent.asks_return:
            returns = agent.predict_return(features[:, -1]).double()
            tokens = agent.embed_step(1, previous, returns.float(), observation, times)
            features, past = agent.read(tokens, past, read=NEWEST)
        actions = agent.actions.decide(agent.head(features[:, -1]))
        actions = actions[:, None] if agent.spec.discrete else actions
        return (actions, returns, timestep + 1, *past.tensors().values())


def _frozen(agent: Agent) -> Agent:
    return deepcopy(agent).requires_grad_(False).cpu().eval()


def _tensor(name: str, meaning: str, *sizes: int, dtype: str = "float32") -> card.Tensor:
    return card.Tensor(name, dtype, ("batch", *sizes), meaning)


def _layer_tensor(name: str, tensor: Tensor) -> card.Tensor:
    """The tensor `LAYER.FIELD` of `SequenceState.tensors`."""
    layer, field = name.split(".", 1)
    dtype = str(tensor.dtype).removeprefix("torch.")
    name = f"layer_{layer}_{field}"  # such as no operation's, after which values are named
    return _tensor(name, f"{field} of layer {layer}", *tensor.shape[1:], dtype=dtype)


def _new(tensor: card.Tensor) -> card.Tensor:
    return card.Tensor(f"new_{tensor.name}", tensor.dtype, tensor.shape, f"next {tensor.name}")

"""The step of an agent as a module of tensors, and the description of each of them.

Every input and output is float32, the type that browsers and microcontrollers have. `ExportedStep`
counts timesteps and returns around one of two steps: `AarenStep`, with everything constant
multiplied out, and `LayersStep`, the agent's own layers, for any mixer whose state has a constant
size. An agent without memory has a `MemorylessStep`.
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

LARGEST_WHOLE = 2**24  # float32 holds every whole number up to it
Carried = tuple[card.Tensor, float | str]
"""A tensor that goes from step to step, and what fills it at an episode's start."""


@dataclass(frozen=True)
class Step:
    """An agent's step.

    Attributes:
        module: takes `inputs` in this order and returns the tuple of `outputs`; of a step in C,
            which is written from the weights, the agent.
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
        UserError: for an agent that cannot be exported; says why.
    """
    start, count = agent.spec.choices or (0, 1)
    needed = "embed_step" if agent.has_memory else "predict_step"
    why = ""
    if max(abs(start), abs(start + count - 1)) > LARGEST_WHOLE:
        why = (
            f"its actions are the numbers from {start} to {start + count - 1}, and float32 holds "
            f"whole numbers up to {LARGEST_WHOLE} alone"
        )
    elif agent.spec.observation_offset:
        why = (
            "its observations are shifted in float64 before they become float32 "
            "(`observation_offset`), which an exported step does not do"
        )
    elif agent.config.execute > 1:
        why = (
            f"it executes {agent.config.execute} actions of a chunk; an exported step takes the "
            "first of each (--execute 1)"
        )
    elif not hasattr(agent, needed):
        why = f"it has no method `{needed}`"
    if why:
        raise UserError(f"{agent.name} cannot be exported: {why}")
    agent.check_task()
    agent.eval()
    size, discrete = agent.spec.action_size, agent.spec.discrete
    chosen = "action, of which nothing is drawn," if agent.actions.samples else "action"
    action = numbers(
        "action",
        f"{chosen} as the environment takes it, inside its bounds; columns as aaren_rl.layout says"
        if agent.spec.in_parts
        else f"{chosen} as the environment takes it, flattened, inside its bounds",
        1 if discrete else size,
    )
    observation = numbers(
        "observation",
        "observation as the environment gives it, flattened"
        if agent.spec.observation_layout.is_box
        else "observation as columns, part after part, choices counted from 0",
        agent.spec.observation_size,
    )
    if not agent.has_memory:
        return Step(MemorylessStep(agent).eval(), (observation,), (action,), {}, {})
    sequence: Any = agent  # a DecisionAgent
    own = AarenStep(sequence) if sequence.folds else LayersStep(agent)
    layers = own.carried if isinstance(own, LayersStep) else _folded_state(own)
    carried = [*_counted(agent), *layers]
    previous = card.Tensor("previous_action", action.dtype, action.shape, "the last action")
    first = 0.0 if agent.spec.choices is None else float(agent.spec.choices[0])
    state = {f"new_{each.name}": each.name for each, _ in carried}
    return Step(
        ExportedStep(agent, own).eval(),
        (
            observation,
            numbers("reward", "what the last action earned; at first 0", 1),
            previous,
            *(each for each, _ in carried),
        ),
        (action, *(_new(each) for each, _ in carried)),
        {"action": previous.name, **state},
        {previous.name: first, **{each.name: value for each, value in carried}},
    )


def _counted(agent: Agent) -> list[Carried]:
    """The tensors of `ExportedStep` itself."""
    time = numbers("timestep", f"steps taken in this episode, at most {LARGEST_WHOLE}", 1), 0.0
    if not agent.asks_return:
        meaning = "return on which the last action was taken, predicted by the step; not read"
        if not agent.predicts_return:
            meaning = "not read: this agent acts without a return"
        return [(numbers("return_to_go", meaning, 1), 0.0), time]
    rest = "what rounding has left out of return_to_go, to be taken from it"
    return [
        (numbers("return_to_go", "return still to be earned, before reward", 1), "target_return"),
        (numbers("return_rest", rest, 1), 0.0),
        time,
    ]


def _folded_state(step: AarenStep) -> list[Carried]:
    meanings = {
        "state": f"weighted sum of values ({step.dim} numbers) and sum of weights, of layer",
        "maximum": "highest score so far, of layer",
    }
    return [
        (numbers(f"{name}_{index}", f"{meanings[name]} {index}", step.heads, size), value)
        for index in range(len(step.blocks))
        for name, size, value in step.layer_state
    ]


class ExportedStep(nn.Module):
    """An agent's step in float32 alone, with the counting: time and return-to-go.

    Args:
        agent: the agent.
        own: its step.
    """

    def __init__(self, agent: Agent, own: AarenStep | LayersStep) -> None:
        super().__init__()
        self.own, self.asks_return = own, agent.asks_return
        self.discrete = agent.spec.discrete

    def forward(self, *inputs: Tensor) -> tuple[Tensor, ...]:
        """One step; inputs and outputs are those of `Step`, in its order.

        The timestep stays at 2^24, from which float32 cannot count on. Rewards are taken from the
        return-to-go with what rounding has left out so far (Kahan's sum), so that its error does
        not grow with the episode.
        """
        observation, reward, previous, returns, *others = inputs
        rest: tuple[Tensor, ...] = ()
        if self.asks_return:
            taken = reward + others.pop(0)
            before, returns = returns, returns - taken
            rest = ((returns - before) + taken,)
        timestep, *state = others
        previous = previous.long() if self.discrete else previous
        action, returns, new = self.own.decide(
            observation, returns, previous, timestep.long(), timestep == 0, tuple(state)
        )
        return (action.float(), returns, *rest, timestep + 1, *new)


class MemorylessStep(nn.Module):
    """Raw observations to raw actions, for an agent without memory."""

    def __init__(self, agent: Agent) -> None:
        super().__init__()
        self.agent: Any = _frozen(agent)

    def forward(self, observation: Tensor) -> tuple[Tensor]:
        """Observations `[batch, observation_size]` to actions `[batch, action_size or 1]`."""
        actions = self.agent.actions.decide(self.agent.predict_step(observation))
        return ((actions if actions.dim() == 2 else actions[:, None]).float(),)


class LayersStep(nn.Module):
    """The step of a sequence agent through its own layers, with the layers' states as tensors.

    Args:
        agent: its mixers' states must be dataclasses of tensors `[batch, ...]`.

    Raises:
        UserError: when the state's size changes from step to step.
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
        self.dtypes = [tensor.dtype for tensor in after_one.values()]
        sizes = {name: tuple(tensor.shape) for name, tensor in after_one.items()}
        if sizes != {name: tuple(tensor.shape) for name, tensor in after_two.items()}:
            raise UserError(
                f"{agent.name} cannot be exported: its state grows with every step; an agent whose "
                "state has a constant size, or none, can"
            )
        # Filled with 0 at an episode's start: the step itself clears it.
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

    def decide(
        self,
        observation: Tensor,
        returns_to_go: Tensor,
        previous_action: Tensor,
        timestep: Tensor,
        first: Tensor,
        state: tuple[Tensor, ...],
    ) -> tuple[Tensor, Tensor, tuple[Tensor, ...]]:
        """See `AarenStep.decide`; the state is cleared where `first` is true."""
        agent: Any = self.agent
        times, starts = timestep[:, 0], first[:, 0]
        previous = previous_action[:, 0] if agent.spec.discrete else previous_action
        typed = (each.to(dtype) for each, dtype in zip(state, self.dtypes, strict=True))
        named = dict(zip(self.names, typed, strict=True))
        past = SequenceState.from_tensors(self.kinds, named).reset(starts)
        tokens = agent.embed_step(0, previous, returns_to_go, observation, times)
        # The first token is the previous action, which an episode's first step has not.
        mask = torch.cat([~starts[:, None], torch.ones_like(tokens[:, 1:, 0], dtype=torch.bool)], 1)
        features, past = agent.read(tokens, past, mask, NEWEST)
        if agent.predicts_return:
            returns_to_go = agent.predict_return(features[:, -1])
            tokens = agent.embed_step(1, previous, returns_to_go, observation, times)
            features, past = agent.read(tokens, past, read=NEWEST)
        actions = agent.actions.decide(agent.head(features[:, -1]))
        actions = actions[:, None] if agent.spec.discrete else actions
        return actions, returns_to_go, tuple(each.float() for each in past.tensors().values())


def _frozen(agent: Agent) -> Agent:
    return deepcopy(agent).requires_grad_(False).cpu().eval()


def numbers(name: str, meaning: str, *sizes: int) -> card.Tensor:
    """A tensor of float32, `[batch, *sizes]`."""
    return card.Tensor(name, "float32", ("batch", *sizes), meaning)


def _layer_tensor(name: str, tensor: Tensor) -> card.Tensor:
    """The tensor `LAYER.FIELD` of `SequenceState.tensors`."""
    layer, field = name.split(".", 1)
    name = f"layer_{layer}_{field}"  # such as no operation's, after which values are named
    return numbers(name, f"{field} of layer {layer}", *tensor.shape[1:])


def _new(tensor: card.Tensor) -> card.Tensor:
    return card.Tensor(f"new_{tensor.name}", tensor.dtype, tensor.shape, f"next {tensor.name}")

"""What goes in and out of an exported step, in which order: the same for every format."""

from __future__ import annotations

from dataclasses import dataclass

from aaren_rl.agents import Agent, BehaviorCloning, DecisionAaren
from aaren_rl.agents.aaren_step import AarenStep
from aaren_rl.agents.actions import DiscreteActions
from aaren_rl.errors import UserError
from aaren_rl.runtime.card import Tensor

Exportable = DecisionAaren | BehaviorCloning


@dataclass(frozen=True)
class Interface:
    """The step's inputs and outputs, and which output is which input of the next step."""

    inputs: tuple[Tensor, ...]
    outputs: tuple[Tensor, ...]
    state: dict[str, str]
    reset_state: dict[str, float | str]


def check_exportable(agent: Agent) -> Exportable:
    """The agent, if its step can be one file.

    Raises:
        UserError: for an agent without a state of constant size.
    """
    if agent.spec.observation_offset:
        raise UserError(
            f"{agent.name} cannot be exported: its observations are shifted in float64 before they "
            "become float32 (`observation_offset`), which an exported step does not do"
        )
    if isinstance(agent, (DecisionAaren, BehaviorCloning)):
        return agent
    raise UserError(
        f"{agent.name} cannot be exported: only {DecisionAaren.name} (whose state has a constant "
        f"size) and {BehaviorCloning.name} (which has none) can; a Transformer's cache grows with "
        "every step"
    )


def interface_of(agent: Exportable) -> Interface:
    """What an agent's step takes and gives."""
    observation = Tensor(
        "observation",
        "float32",
        ("batch", agent.spec.observation_size),
        "observation as the environment gives it, flattened",
    )
    action = Tensor(
        "action",
        "int64" if agent.spec.discrete else "float32",
        ("batch", 1 if agent.spec.discrete else agent.spec.action_size),
        "action as the environment takes it, flattened, inside its bounds",
    )
    if isinstance(agent, BehaviorCloning):
        return Interface((observation,), (action,), {}, {})
    return _sequence_interface(agent, observation, action)


def _sequence_interface(agent: DecisionAaren, observation: Tensor, action: Tensor) -> Interface:
    step = AarenStep(agent)
    previous = Tensor("previous_action", action.dtype, action.shape, "the last action")
    meaning = "return still to be earned, before reward"
    if not agent.asks_return:
        meaning = "return on which the last action was taken, predicted by the step; not read"
    clock = (
        Tensor("return_to_go", "float64", ("batch", 1), meaning),
        Tensor("timestep", "int64", ("batch", 1), "steps taken in this episode"),
    )
    meanings = {
        "state": f"weighted sum of values ({step.dim} numbers) and sum of weights, of layer",
        "maximum": "highest score so far, of layer",
    }
    layers, empty = [], []
    for index in range(agent.config.layers):
        for name, size, value in step.layer_state:
            shape = ("batch", step.heads, size)
            layers.append(Tensor(f"{name}_{index}", "float32", shape, f"{meanings[name]} {index}"))
            empty.append(value)
    reward = Tensor("reward", "float64", ("batch", 1), "what the last action earned; at first 0")
    carried = (*clock, *layers)
    new = (Tensor(f"new_{t.name}", t.dtype, t.shape, f"next {t.name}") for t in carried)
    state = {"action": "previous_action", **{f"new_{t.name}": t.name for t in carried}}
    begin = float(agent.actions.start) if isinstance(agent.actions, DiscreteActions) else 0.0
    values: list[float | str] = [begin, "target_return" if agent.asks_return else 0.0, 0.0, *empty]
    reset = dict(zip(state.values(), values, strict=True))
    return Interface((observation, reward, previous, *carried), (action, *new), state, reset)

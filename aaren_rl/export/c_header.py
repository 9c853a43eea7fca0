"""A recurrent agent as one C header: its folded weights, its state, and a step without a heap.

The header is the template `templates/policy.h.j2` with one of `mixer_*.h.j2`. It reads a step's
tokens one after the other, so it needs room for one token alone.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from aaren_rl.agents import Agent
from aaren_rl.agents.step_parts import fold_embedding, head_of, return_head_of
from aaren_rl.errors import UserError
from aaren_rl.export.steps import Step, numbers
from aaren_rl.layers import AarenAttention, CategoricalActions, ContinuousActions, DiscreteActions
from aaren_rl.layers.folded import Affine, affine, fold_attention, to_numpy
from aaren_rl.layers.mixers.lstm import LSTMMixer
from aaren_rl.layers.mixers.min_gru import MinGRUMixer

TEMPLATES = Path(__file__).with_name("templates")
LARGEST_INT8 = 127


@dataclass(frozen=True)
class CMap:
    """A linear map, one row of weights for each output.

    Attributes:
        weight: `[out, in]`, float32, or int8 in units of `scale`.
        bias: float32 `[out]`.
        scale: float32 `[out]`; `None` for float32 weights.
    """

    weight: np.ndarray
    bias: np.ndarray
    scale: np.ndarray | None = None


@dataclass(frozen=True)
class CNorm:
    """A layer norm: `weight` and `bias` `[width]`."""

    weight: np.ndarray
    bias: np.ndarray
    epsilon: float


@dataclass(frozen=True)
class CMixer:
    """One layer's mixer.

    Attributes:
        template: `mixer_NAME.h.j2`.
        maps: as its struct has them, after `arrays`.
        state: numbers that it carries.
        work: numbers of room that it needs.
        arrays: float32, as its struct has them.
    """

    template: str
    maps: dict[str, Affine]
    state: int
    work: int
    arrays: dict[str, np.ndarray] = field(default_factory=dict)


@dataclass(frozen=True)
class CLayer:
    """One block."""

    mixer_norm: CNorm
    feed_forward_norm: CNorm
    mixer_arrays: dict[str, np.ndarray]
    mixer_maps: dict[str, CMap]
    maps: dict[str, CMap]
    """Those of the mixer, `expand` and `contract`."""


@dataclass(frozen=True)
class CPolicyParts:
    """Everything that the template reads. `maps` and `arrays` are those outside the blocks."""

    title: str
    int8: bool
    asks_return: bool
    target_returns: tuple[float, ...]
    largest_return: float | None
    observation_size: int
    action_numbers: int
    first_action: float
    choices: tuple[int, int] | None
    bounded: bool
    whole: bool
    head_outputs: int
    clips: bool
    width: int
    heads: int
    mixer: str
    layer_state: int
    work: int
    relu: bool
    timestep_embedding: str
    times: int
    chunks: tuple[tuple[str, ...], ...]
    layers: list[CLayer]
    embed_norm: CNorm
    final_norm: CNorm
    maps: dict[str, CMap]
    arrays: dict[str, np.ndarray]


def c_header(agent: Agent, *, int8: bool = False) -> bytes:
    """The content of a header file.

    Args:
        agent: a recurrent agent with Box observations and Box or Discrete actions.
        int8: the blocks' linear layers in 8 bits, one scale for each output. Embeddings, norms,
            Aaren's scores and the head stay in float32.

    Raises:
        UserError: for an agent of another kind.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        undefined=StrictUndefined,
    )
    environment.filters.update(number=_number, numbers=_numbers)
    text = environment.get_template("policy.h.j2").render(policy=_parts(agent, int8))
    return text.encode()


def c_step(agent: Agent) -> Step:
    """What goes in and out of `policy_step`: its state is a struct of its own.

    Raises:
        UserError: for an agent that cannot be exported as C.
    """
    _check(agent)
    given = (
        numbers("observation", "as the environment gives it", agent.spec.observation_size),
        numbers("reward", "what the last action earned; at first not looked at", 1),
    )
    size = 1 if agent.spec.discrete else agent.spec.action_size
    action = numbers("action", "action as the environment takes it, inside its bounds", size)
    return Step(agent, given, (action,), {}, {})


def c_file(step: Step) -> bytes:
    """The content of a header, from a `c_step`."""
    agent: Any = step.module
    return c_header(agent)


def _check(agent: Agent) -> None:
    """Raise `UserError` for an agent that the template does not know."""
    why, known = "", ", ".join(sorted(kind.__name__ for kind in MIXERS))
    sequence: Any = agent
    if agent.spec.observation_offset:
        why = "its observations are shifted in float64 before they become float32"
    elif not agent.has_memory or not hasattr(agent, "sequence_model"):
        why = "it has no recurrent state"
    elif not agent.spec.observation_layout.is_box:
        why = "its observations are no Box"
    elif agent.spec.in_parts:
        why = "its actions are neither a Box nor Discrete"
    else:
        mixers = {type(block.mixer) for block in sequence.sequence_model.blocks}
        others = sorted(kind.__name__ for kind in mixers - set(MIXERS))
        if others or len(mixers) > 1:
            why = f"its mixer is {', '.join(others)}, and C is written for {known}"
        elif not sequence.folds_embedding or type(agent.actions) not in HEADS:
            why = "its encoder or action head is not the plain linear one"
    if why:
        raise UserError(f"{agent.name} cannot be exported as C: {why}")


def _parts(agent: Any, int8: bool) -> CPolicyParts:
    _check(agent)
    agent.eval()
    config, spec = agent.config, agent.spec
    discrete = isinstance(agent.actions, DiscreteActions)
    mixers = [MIXERS[type(block.mixer)](block) for block in agent.sequence_model.blocks]
    maps, arrays = _outside(agent, discrete)
    outputs = len(maps["head"].bias)
    return CPolicyParts(
        title=f"The acting step of a {agent.name} (width {config.width}, {config.layers} layers)",
        int8=int8,
        asks_return=agent.asks_return,
        target_returns=spec.target_returns,
        largest_return=spec.largest_return,
        observation_size=spec.observation_size,
        action_numbers=1 if discrete else spec.action_size,
        first_action=0.0 if spec.choices is None else float(spec.choices[0]),
        choices=spec.choices,
        bounded=not discrete and agent.actions.bounded,
        whole=not discrete and agent.actions.whole,
        head_outputs=outputs,
        clips="lowest" in arrays,
        width=config.width,
        heads=config.heads,
        mixer=mixers[0].template,
        layer_state=mixers[0].state,
        work=max(mixers[0].work, 4 * config.width, spec.observation_size, outputs),
        relu=config.activation == "relu",
        timestep_embedding=config.timestep_embedding,
        times=config.max_episode_length,
        chunks=agent.chunks,
        layers=[
            _layer(block, mixer, int8)
            for block, mixer in zip(agent.sequence_model.blocks, mixers, strict=True)
        ],
        embed_norm=_norm(agent.embed_norm),
        final_norm=_norm(agent.sequence_model.norm),
        maps=maps,
        arrays=arrays,
    )


def _layer(block: Any, mixer: CMixer, int8: bool) -> CLayer:
    make = _in_int8 if int8 else _map
    own = {name: make(weights) for name, weights in mixer.maps.items()}
    feed_forward = block.feed_forward
    expand, contract = affine(feed_forward.expand), affine(feed_forward.contract)
    return CLayer(
        mixer_norm=_norm(block.mixer_norm),
        feed_forward_norm=_norm(block.feed_forward_norm),
        mixer_arrays=mixer.arrays,
        mixer_maps=own,
        maps={**own, "expand": make(expand), "contract": make(contract)},
    )


def _outside(agent: Any, discrete: bool) -> tuple[dict[str, CMap], dict[str, np.ndarray]]:
    """Maps and arrays outside the blocks: embeddings, heads and the units of actions."""
    maps, arrays = {}, {}
    for kind in ("observation", "return", "action"):
        if kind != "action" or not discrete:
            maps[f"embed_{kind}"] = _map(fold_embedding(agent, (kind,)))
    head = head_of(agent)
    maps["head"] = CMap(to_numpy(head.weight).T, to_numpy(head.bias))
    predicted = return_head_of(agent)
    if predicted is not None:
        maps["return_head"] = CMap(to_numpy(predicted.weight).T, to_numpy(predicted.bias))
    if discrete:
        arrays["actions"] = to_numpy(agent.embed_action.weight)
    else:
        names = ("low", "high", "middle", "reach")
        arrays.update({name: to_numpy(getattr(agent.actions, name)) for name in names})
    bounds = agent.observation_bounds()
    if bounds is not None:
        arrays["lowest"], arrays["highest"] = (to_numpy(each) for each in bounds)
    if agent.config.timestep_embedding == "learned":
        arrays["times"] = to_numpy(agent.embed_timestep.weight)
    elif agent.config.timestep_embedding == "sinusoidal":
        arrays["frequencies"] = to_numpy(agent.embed_timestep.frequencies)
    return maps, arrays


def _aaren(block: Any) -> CMixer:
    """Keys and query as one score a head, and with a single head no output projection."""
    layer, folded = block.mixer, fold_attention(block.mixer, block.mixer_norm)
    heads, dim, width = folded.heads, folded.dim, layer.width
    weight = folded.project[0].reshape(width, heads, dim + 2)
    bias = folded.project[1].reshape(heads, dim + 2)
    values = weight[:, :, :dim].reshape(width, -1), bias[:, :dim].reshape(-1)
    maps = {"value": values} if folded.out is None else {"value": values, "out": folded.out}
    recency = np.zeros(heads) if layer.recency is None else to_numpy(layer.recency)
    arrays = {
        "score_weight": weight[:, :, dim + 1].T,
        "score_bias": bias[:, dim + 1],
        "recency": recency,
    }
    return CMixer("aaren", maps, heads * (dim + 2), 2 * width, arrays)


def _lstm(block: Any) -> CMixer:
    own, width = block.mixer.lstm, block.mixer.lstm.hidden_size
    maps = {
        name: (to_numpy(own.get_parameter(weight)).T, to_numpy(own.get_parameter(bias)))
        for name, weight, bias in (
            ("from_input", "weight_ih_l0", "bias_ih_l0"),
            ("from_hidden", "weight_hh_l0", "bias_hh_l0"),
        )
    }
    return CMixer("lstm", {**maps, "out": affine(block.mixer.out)}, 2 * width, 8 * width)


def _min_gru(block: Any) -> CMixer:
    mixer = block.mixer
    maps = {name: affine(getattr(mixer, name)) for name in ("gate", "candidate", "out")}
    return CMixer("min_gru", maps, mixer.out.out_features, 2 * mixer.out.out_features)


MIXERS: dict[type[nn.Module], Callable[[Any], CMixer]] = {
    AarenAttention: _aaren,
    LSTMMixer: _lstm,
    MinGRUMixer: _min_gru,
}
"""What is written for each mixer, by its class: those from outside may compute something else."""
HEADS = (ContinuousActions, DiscreteActions, CategoricalActions)
"""Heads whose decision is written: a tanh or the largest logit."""


def _norm(norm: nn.LayerNorm) -> CNorm:
    return CNorm(to_numpy(norm.weight), to_numpy(norm.bias), norm.eps)


def _map(weights: Affine) -> CMap:
    return CMap(weights[0].T, weights[1])


def _in_int8(weights: Affine) -> CMap:
    weight = weights[0].T
    scale = np.abs(weight).max(axis=1) / LARGEST_INT8
    units = np.divide(weight, scale[:, None], out=np.zeros_like(weight), where=scale[:, None] > 0)
    return CMap(np.rint(units).astype(np.int8), weights[1], scale)


def _number(value: float) -> str:
    """A number as a float of C; infinite ones, which are bounds, as the largest one."""
    largest = float(np.finfo(np.float32).max)
    return f"{min(max(float(value), -largest), largest):.8e}f"


def _numbers(values: np.ndarray, kind: str) -> str:
    """An array, flattened, as the inside of an initialiser of this C type."""
    one, columns = {"float": ("%.8ef", 8), "double": ("%.16e", 4), "signed char": ("%d", 32)}[kind]
    flat = np.ravel(values)
    if kind == "float":
        largest = np.finfo(np.float32).max
        flat = flat.clip(-largest, largest).astype(np.float32)
    lines = (flat[i : i + columns].tolist() for i in range(0, len(flat), columns))
    return ",\n".join(", ".join([one] * len(line)) % tuple(line) for line in lines)

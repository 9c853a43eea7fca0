"""A recurrent agent as one C header: its folded weights, its state, and a step without a heap.

The header is the template `templates/policy.h.j2` with one of `mixer_*.h.j2`. It reads a step's
tokens one after the other, so it needs room for one token alone.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

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


class CMixer(NamedTuple):
    """One layer's mixer."""

    name: str  # of the template `mixer_NAME.h.j2`
    maps: dict[str, Affine]  # as its struct has them, after `arrays`
    state: int  # numbers that it carries
    work: int  # numbers in its work space
    arrays: dict[str, np.ndarray]


def c_header(agent: Agent, *, int8: bool = False) -> bytes:
    """The content of a header file; see `_check` for the agents that can be written.

    Args:
        agent: the agent.
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
    _check(agent)
    text = environment.get_template("policy.h.j2").render(policy=_parts(agent.eval(), int8))
    return text.encode()


def c_step(agent: Agent) -> Step:
    """The inputs and outputs of `policy_step`, whose state is a struct of its own.

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


def _parts(agent: Any, int8: bool) -> dict[str, Any]:
    """Everything that the template reads. A map is `{weight [out, in], bias [out], scale}`."""
    config, spec = agent.config, agent.spec
    discrete = isinstance(agent.actions, DiscreteActions)
    blocks = agent.sequence_model.blocks
    mixers = [MIXERS[type(block.mixer)](block) for block in blocks]
    maps, arrays = _outside(agent, discrete)
    outputs = len(maps["head"]["bias"])
    return {
        "title": f"The acting step of a {agent.name}, width {config.width}, {config.layers} layers",
        "int8": int8,
        "asks_return": agent.asks_return,
        "target_returns": spec.target_returns,
        "largest_return": spec.largest_return,
        "observation_size": spec.observation_size,
        "action_numbers": 1 if discrete else spec.action_size,
        "first_action": 0.0 if spec.choices is None else float(spec.choices[0]),
        "choices": spec.choices,
        "bounded": not discrete and agent.actions.bounded,
        "whole": not discrete and agent.actions.whole,
        "head_outputs": outputs,
        "clips": "lowest" in arrays,
        "width": config.width,
        "heads": config.heads,
        "mixer": mixers[0].name,
        "layer_state": mixers[0].state,
        "work": max(mixers[0].work, 4 * config.width, spec.observation_size, outputs),
        "relu": config.activation == "relu",
        "timestep_embedding": config.timestep_embedding,
        "times": config.max_episode_length,
        "chunks": agent.chunks,
        "layers": [_layer(*each, int8) for each in zip(blocks, mixers, strict=True)],
        "embed_norm": _norm(agent.embed_norm),
        "final_norm": _norm(agent.sequence_model.norm),
        "maps": maps,  # these and `arrays`: outside the blocks
        "arrays": arrays,
    }


def _layer(block: Any, mixer: CMixer, int8: bool) -> dict[str, Any]:
    make = _in_int8 if int8 else _map
    own = {name: make(weights) for name, weights in mixer.maps.items()}
    expand, contract = affine(block.feed_forward.expand), affine(block.feed_forward.contract)
    return {
        "mixer_norm": _norm(block.mixer_norm),
        "feed_forward_norm": _norm(block.feed_forward_norm),
        "mixer_arrays": mixer.arrays,
        "mixer_maps": own,
        "maps": {**own, "expand": make(expand), "contract": make(contract)},
    }


def _outside(agent: Any, discrete: bool) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Maps and arrays outside the blocks: embeddings, heads and the units of actions."""
    maps, arrays = {}, {}
    for kind in ("observation", "return", "action"):
        if kind != "action" or not discrete:
            maps[f"embed_{kind}"] = _map(fold_embedding(agent, (kind,)))
    for name, head in (("head", head_of(agent)), ("return_head", return_head_of(agent))):
        if head is not None:
            maps[name] = _map((to_numpy(head.weight), to_numpy(head.bias)))
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
    return CMixer("lstm", {**maps, "out": affine(block.mixer.out)}, 2 * width, 8 * width, {})


def _min_gru(block: Any) -> CMixer:
    mixer = block.mixer
    maps = {name: affine(getattr(mixer, name)) for name in ("gate", "candidate", "out")}
    return CMixer("min_gru", maps, mixer.out.out_features, 2 * mixer.out.out_features, {})


MIXERS: dict[type[nn.Module], Callable[[Any], CMixer]] = {
    AarenAttention: _aaren,
    LSTMMixer: _lstm,
    MinGRUMixer: _min_gru,
}
"""The known mixers, by their exact class: a derived one may compute something else."""
HEADS = (ContinuousActions, DiscreteActions, CategoricalActions)
"""Heads whose decision is written: a tanh or the largest logit."""


def _norm(norm: nn.LayerNorm) -> dict[str, Any]:
    return {"weight": to_numpy(norm.weight), "bias": to_numpy(norm.bias), "epsilon": norm.eps}


def _map(weights: Affine) -> dict[str, Any]:
    return {"weight": weights[0].T, "bias": weights[1], "scale": None}


def _in_int8(weights: Affine) -> dict[str, Any]:
    """Weights in units of one `scale` for each output."""
    weight = weights[0].T
    scale = np.abs(weight).max(axis=1) / LARGEST_INT8
    units = np.divide(weight, scale[:, None], out=np.zeros_like(weight), where=scale[:, None] > 0)
    return {"weight": np.rint(units).astype(np.int8), "bias": weights[1], "scale": scale}


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

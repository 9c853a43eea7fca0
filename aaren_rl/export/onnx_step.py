"""The acting step of an agent as an ONNX graph of standard operators.

Decision Aaren's is `aaren_rl.agents.aaren_step` operation by operation, with its weights; look
there for what it computes and why. It is written node by node rather than traced: the traced graph
is several times longer, and at these sizes a node's fixed cost is most of its time.
"""

from __future__ import annotations

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from aaren_rl.agents import BehaviorCloning
from aaren_rl.agents.aaren_step import AarenStep, StepBlock
from aaren_rl.agents.actions import ActionCodec, DiscreteActions
from aaren_rl.agents.step_parts import TOKENS, AffineMap, CopiedNorm, part
from aaren_rl.export.graph import DOUBLE, FLOAT, GraphWriter
from aaren_rl.export.interface import Exportable, interface_of
from aaren_rl.layers.folded import affine, to_numpy

EMBED, HEAD = "embed", "head"
"""Names of the first and the last linear layer's nodes (and outputs)."""


def onnx_step(agent: Exportable) -> ModelProto:
    """The step of an agent; `aaren_rl.export.interface` says what goes in and out."""
    graph = GraphWriter()
    if isinstance(agent, BehaviorCloning):
        _write_cloning(graph, agent)
    else:
        _AarenGraph(graph, AarenStep(agent)).write()
    interface = interface_of(agent)
    return graph.model(agent.name, interface.inputs, interface.outputs)


class _AarenGraph:
    """Writes an `AarenStep`; values are known by their names in the graph."""

    def __init__(self, graph: GraphWriter, step: AarenStep) -> None:
        self.g, self.step, self.width = graph, step, step.width
        # Tokens lie in the axis before the last, after the batch and, if there are several, heads.
        self.axis = 1 if step.heads == 1 else 2

    def write(self) -> None:
        g, step = self.g, self.step
        returns = g.node("Sub", "return_to_go", "reward", name="new_return_to_go")
        g.node("Add", "timestep", g.ints(1), name="new_timestep")
        x = self._tokens(returns, "timestep")
        # An episode's first step has no previous action: its row, then that of all other steps.
        added = torch.stack([step.absent.view(1, TOKENS), torch.zeros(1, TOKENS)])
        recency = self._blocks()[0].recency  # the same in all
        if recency is not None:
            added = added + recency.view(1, step.heads, TOKENS)
        absent = g.node("Gather", _keep(g, added), g.node("Min", "timestep", g.ints(1)))
        absent = g.reshape(absent, -1, *added.shape[1 : self.axis], TOKENS, 1)
        for index, block in enumerate(self._blocks()):
            x = self._block(index, block, x, absent)
        predictions = self._affine(step.head, self._norm(step.norm, x), name=HEAD)
        _write_action(g, step.actions, predictions)

    def _blocks(self) -> list[StepBlock]:
        return [part(block, StepBlock) for block in self.step.blocks]

    def _tokens(self, returns: str, timestep: str) -> str:
        """The chunk `(a_{t-1}, R_t, s_t)`, embedded: `[3 batch, width]`."""
        g, embedding = self.g, self.step.embedding
        bounds = (embedding.lowest, embedding.highest) if embedding.clips else None
        values = [g.node("Cast", returns, to=FLOAT), _clipped(g, bounds)]
        if not isinstance(embedding.actions, DiscreteActions):
            values.insert(0, "previous_action")
        x = self._affine(embedding.linear, g.node("Concat", *values, axis=1), name=EMBED)
        if isinstance(embedding.actions, DiscreteActions):
            index = "previous_action"
            if embedding.actions.start:
                index = g.node("Sub", index, g.ints(embedding.actions.start))
            looked_up = g.node("Gather", _keep(g, embedding.action_table, "action_table"), index)
            x = g.node("Concat", g.reshape(looked_up, -1, self.width), x, axis=1)
        if embedding.timestep_embedding == "learned":
            times = g.node("Add", timestep, g.ints(0, 1, 1))
            rows = g.node("Gather", _keep(g, embedding.timestep_table, "timestep_table"), times)
            x = g.node("Add", g.reshape(x, -1, TOKENS, self.width), rows)
        elif embedding.timestep_embedding == "sinusoidal":
            times = g.node("Add", timestep, g.ints(-1, 0, 0))
            times = g.reshape(g.node("Cast", times, to=DOUBLE), -1, TOKENS, 1)
            angles = g.node("Mul", times, g.constant(embedding.frequencies.cpu().numpy()))
            waves = g.node("Concat", g.node("Sin", angles), g.node("Cos", angles), axis=2)
            rows = g.node("Cast", waves, to=FLOAT)
            x = g.node("Add", g.reshape(x, -1, TOKENS, self.width), rows)
        return self._norm(embedding.norm, g.reshape(x, -1, self.width))

    def _block(self, index: int, block: StepBlock, x: str, absent: str) -> str:
        """`StepBlock`: tokens in, tokens out; the last gives the observation's alone."""
        g, heads, last = self.g, self.step.heads, index == len(self.step.blocks) - 1
        rows = self._affine(block.project, self._norm(block.norm, x))
        if heads == 1:
            rows = g.reshape(rows, -1, TOKENS, block.dim + 2)
        else:
            rows = g.reshape(rows, -1, TOKENS, heads, block.dim + 2)
            rows = g.node("Transpose", rows, perm=[0, 2, 1, 3])
        values, scores = g.nodes("Split", rows, g.ints(block.dim + 1, 1), outputs=2, axis=-1)
        scores = g.node("Add", scores, absent)
        attend = self._attend if self.step.carries_maximum else self._attend_bounded
        after = attend(index, block.passed, values, scores, last)
        weighted, normalizer = g.nodes("Split", after, g.ints(block.dim, 1), outputs=2, axis=-1)
        mixed = g.node("Div", weighted, normalizer)
        if heads > 1 and not last:
            mixed = g.node("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = g.reshape(mixed, -1, heads * block.dim)
        if block.out is not None:
            mixed = self._affine(block.out, mixed)
        if last:
            x = g.reshape(x, -1, TOKENS, self.width)
            x = g.node("Gather", x, g.constant(np.array(TOKENS - 1)), axis=1)
        x = g.node("Add", x, mixed)
        half = block.feed_forward
        hidden = self._affine(half.expand, self._norm(half.norm, x))
        if half.relu:
            hidden = g.node("Relu", hidden)
        else:
            hidden = g.node("Gelu", hidden, approximate="tanh")
        return g.node("Add", x, self._affine(half.contract, hidden))

    def _attend_bounded(
        self, index: int, passed: Tensor | None, values: str, scores: str, last: bool
    ) -> str:
        """`folded.attend_bounded`: (w, u) after each token, or after the last one."""
        g, state, new = self.g, f"state_{index}", f"new_state_{index}"
        if passed is not None:
            state = g.node("Mul", state, _keep(g, (-passed).exp()))
        state = self._state(state)
        weights = g.node("Exp", scores)
        if last:
            sums = g.node("MatMul", self._across(weights, TOKENS), values)
        else:
            upto = g.constant(np.tril(np.ones((TOKENS, TOKENS), np.float32)))
            sums = g.node("MatMul", upto, g.node("Mul", values, weights))
        after = g.node("Add", sums, state, name=self._name(new, last))
        self._newest(after, last, new)
        return after

    def _attend(
        self, index: int, passed: Tensor | None, values: str, scores: str, last: bool
    ) -> str:
        """`folded.attend`: the same for scores of any size."""
        g, state, maximum = self.g, self._state(f"state_{index}"), f"maximum_{index}"
        if passed is not None:
            maximum = g.node("Sub", maximum, _keep(g, passed))
        scores = g.node("Concat", self._state(maximum), scores, axis=self.axis)
        mask = self.step.causal[-1:] if last else self.step.causal
        scores = g.node("Add", self._across(scores, TOKENS + 1), _keep(g, mask))
        new = f"new_state_{index}", f"new_maximum_{index}"
        highest = g.node("ReduceMax", scores, g.ints(-1), keepdims=1, name=self._name(new[1], last))
        weights = g.node("Exp", g.node("Sub", scores, highest))
        values = g.node("Concat", state, values, axis=self.axis)
        after = g.node("MatMul", weights, values, name=self._name(new[0], last))
        self._newest(after, last, new[0])
        self._newest(highest, last, new[1])
        return after

    def _state(self, name: str) -> str:
        """A state tensor `[batch, heads, size]` with an axis for the tokens."""
        if self.step.heads == 1:
            return name
        return self.g.node("Unsqueeze", name, self.g.ints(2))

    def _across(self, column: str, size: int) -> str:
        """A column for each head as a row."""
        heads = () if self.step.heads == 1 else (self.step.heads,)
        return self.g.reshape(column, -1, *heads, 1, size)

    def _name(self, new: str, last: bool) -> str:
        """The name of what `_newest` need not change."""
        return new if last and self.step.heads == 1 else ""

    def _newest(self, after: str, last: bool, name: str) -> None:
        """What is there after the last token, as a state tensor `[batch, heads, size]`."""
        g, alone = self.g, self.step.heads == 1
        if not last:
            newest = np.array([TOKENS - 1] if alone else TOKENS - 1)
            g.node("Gather", after, g.constant(newest), axis=self.axis, name=name)
        elif not alone:
            g.node("Squeeze", after, g.ints(2), name=name)

    def _affine(self, module: AffineMap, x: str, name: str = "") -> str:
        weight, bias = _keep(self.g, module.weight), _keep(self.g, module.bias)
        return self.g.node("Gemm", x, weight, bias, name=name)

    def _norm(self, module: CopiedNorm, x: str) -> str:
        g = self.g
        weight, bias = _keep(g, module.weight), _keep(g, module.bias)
        return g.node("LayerNormalization", x, weight, bias, axis=-1, epsilon=module.epsilon)


def _write_cloning(g: GraphWriter, agent: BehaviorCloning) -> None:
    """An MLP from the observation to the action."""
    mean, std = to_numpy(agent.observation_mean), to_numpy(agent.observation_std)
    x = observation = _clipped(g, agent.observation_bounds())
    scale: np.ndarray | None = 1 / std
    for module in [*agent.body, agent.head]:
        linear = module[0] if isinstance(module, nn.Sequential) else module
        if isinstance(linear, nn.Linear):
            weight, bias = affine(linear)
            if scale is not None:  # the first layer standardises
                weight, bias, scale = weight * scale[:, None], bias - (mean * scale) @ weight, None
            name = EMBED if x == observation else HEAD if module is agent.head else ""
            x = g.node("Gemm", x, _float32(g, weight), _float32(g, bias), name=name)
        elif isinstance(linear, nn.ReLU):
            x = g.node("Relu", x)
        elif isinstance(linear, nn.GELU):
            x = g.node("Gelu", x, approximate="tanh")
    _write_action(g, agent.actions, x)


def _clipped(g: GraphWriter, bounds: tuple[Tensor, Tensor] | None) -> str:
    """The raw observation inside the bounds of `Agent.observation_bounds`."""
    if bounds is None:
        return "observation"
    above = g.node("Max", "observation", _keep(g, bounds[0]))
    return g.node("Min", above, _keep(g, bounds[1]))


def _write_action(g: GraphWriter, codec: ActionCodec, predictions: str) -> None:
    """From what the head says to the action in the environment's numbers."""
    if isinstance(codec, DiscreteActions):
        chosen = g.node("ArgMax", predictions, axis=1, keepdims=1)
        g.node("Add", chosen, g.ints(codec.start), name="action")
        return
    action = g.node("Tanh", predictions) if codec.bounded else predictions
    reach, middle = to_numpy(codec.reach), to_numpy(codec.middle)
    low, high = to_numpy(codec.low), to_numpy(codec.high)
    if (reach != 1).any():
        action = g.node("Mul", action, _float32(g, reach))
    if (middle != 0).any():
        action = g.node("Add", action, _float32(g, middle))
    if (low == low[0]).all() and (high == high[0]).all():
        bounds = (_float32(g, np.array(bound[0])) for bound in (low, high))
        g.node("Clip", action, *bounds, name="action")
    else:
        action = g.node("Max", action, _float32(g, low))
        g.node("Min", action, _float32(g, high), name="action")


def _keep(g: GraphWriter, tensor: Tensor, name: str = "") -> str:
    return g.constant(tensor.detach().cpu().numpy(), name)


def _float32(g: GraphWriter, values: np.ndarray) -> str:
    return g.constant(values.astype(np.float32))

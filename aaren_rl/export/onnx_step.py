"""The acting step of an agent as an ONNX graph of standard operators.

Decision Aaren's is `aaren_rl.agents.aaren_step` operation by operation, with its weights; look
there for what it computes and why. It is written node by node rather than traced: the traced graph
is several times longer, and at these sizes a node's fixed cost is most of its time.
"""

from __future__ import annotations

import numpy as np
from onnx import ModelProto
from torch import Tensor, nn

from aaren_rl.agents import BehaviorCloning
from aaren_rl.agents.aaren_step import AarenStep, StepBlock
from aaren_rl.agents.actions import ActionCodec, DiscreteActions
from aaren_rl.agents.step_parts import TOKENS, AffineMap, CopiedNorm
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

    def write(self) -> None:
        g, step = self.g, self.step
        lowered = g.node("Sub", "return_to_go", "reward")
        returns = g.node("Where", "reset", "target_return", lowered, name="new_return_to_go")
        timestep = g.node("Where", "reset", g.ints(0), "timestep")
        g.node("Add", timestep, g.ints(1), name="new_timestep")
        x = self._tokens(returns, timestep)
        mask = g.node(
            "Where", g.reshape("reset", -1, 1, 1, 1), _keep(g, step.afresh), _keep(g, step.later)
        )
        for index, block in enumerate(step.blocks):
            assert isinstance(block, StepBlock)
            x = self._block(index, block, x, mask)
        predictions = self._affine(step.head, self._norm(step.norm, x), name=HEAD)
        _write_action(g, step.actions, predictions)

    def _tokens(self, returns: str, timestep: str) -> str:
        """The chunk `(a_{t-1}, R_t, s_t)`, embedded: `[3 batch, width]`."""
        g, embedding = self.g, self.step.embedding
        values = [g.node("Cast", returns, to=FLOAT), "observation"]
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

    def _block(self, index: int, block: StepBlock, x: str, mask: str) -> str:
        """`StepBlock`: tokens in, tokens out; the last gives the observation's alone."""
        g, last = self.g, index == len(self.step.blocks) - 1
        rows = self._affine(block.project, self._norm(block.norm, x))
        mixed = self._attend(index, rows, mask, last)
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

    def _attend(self, index: int, projected: str, mask: str, last: bool) -> str:
        """`aaren_rl.layers.folded.attend`: outputs `[3 batch, width]`, or `[batch, width]`."""
        g, heads, dim = self.g, self.step.heads, self.step.dim
        if heads == 1:
            rows = g.reshape(projected, -1, 1, TOKENS, dim + 2)
        else:
            rows = g.reshape(projected, -1, TOKENS, heads, dim + 2)
            rows = g.node("Transpose", rows, perm=[0, 2, 1, 3])
        rows = g.node("Concat", f"state_{index}", rows, axis=2)
        sums, scores = g.nodes("Split", rows, g.ints(dim + 1, 1), outputs=2, axis=3)
        newest = g.ints(TOKENS - 1)
        if last:
            mask = g.node("Gather", mask, newest, axis=2)
        scores = g.node("Add", g.reshape(scores, -1, heads, 1, TOKENS + 1), mask)
        maximum = g.node("ReduceMax", scores, g.ints(-1), keepdims=1)
        weights = g.node("Exp", g.node("Sub", scores, maximum))
        sums = g.node("MatMul", weights, sums)
        if last:
            g.node("Concat", sums, maximum, axis=3, name=f"new_state_{index}")
        else:
            states = g.node("Concat", sums, maximum, axis=3)
            g.node("Gather", states, newest, axis=2, name=f"new_state_{index}")
        weighted, normalizer = g.nodes("Split", sums, g.ints(dim, 1), outputs=2, axis=3)
        outputs = g.node("Div", weighted, normalizer)
        if heads > 1 and not last:
            outputs = g.node("Transpose", outputs, perm=[0, 2, 1, 3])
        return g.reshape(outputs, -1, heads * dim)

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
    x = "observation"
    scale: np.ndarray | None = 1 / std
    for module in [*agent.body, agent.head]:
        linear = module[0] if isinstance(module, nn.Sequential) else module
        if isinstance(linear, nn.Linear):
            weight, bias = affine(linear)
            if scale is not None:  # the first layer standardises
                weight, bias, scale = weight * scale[:, None], bias - (mean * scale) @ weight, None
            name = EMBED if x == "observation" else HEAD if module is agent.head else ""
            x = g.node("Gemm", x, _float32(g, weight), _float32(g, bias), name=name)
        elif isinstance(linear, nn.ReLU):
            x = g.node("Relu", x)
        elif isinstance(linear, nn.GELU):
            x = g.node("Gelu", x, approximate="tanh")
    _write_action(g, agent.actions, x)


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

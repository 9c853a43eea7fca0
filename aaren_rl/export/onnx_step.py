"""The acting step of an agent as an ONNX graph of standard operators.

Decision Aaren's is `aaren_rl.agents.aaren_step` operation by operation, with its weights; look
there for what it computes and why. It is written node by node rather than traced: the traced graph
is several times longer, and at these sizes a node's fixed cost is most of its time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from onnx import ModelProto
from torch import Tensor, nn

from aaren_rl.agents import BehaviorCloning
from aaren_rl.agents.aaren_step import AarenStep, StepBlock, StepChunk
from aaren_rl.agents.actions import DiscreteActions
from aaren_rl.agents.step_parts import AffineMap, CopiedNorm, StepEmbedding, part
from aaren_rl.export.graph import DOUBLE, FLOAT, GraphWriter
from aaren_rl.export.interface import Exportable, interface_of
from aaren_rl.layers.folded import affine, to_numpy

EMBED, HEAD = "embed", "head"
"""Names of the first and the last linear layer's nodes (and outputs)."""
EMBED_RETURN, RETURN_HEAD = "embed_return", "return_head"
"""The same of the return that the agent predicts, with the condition `max-return`."""


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
        g.node("Add", "timestep", g.ints(1), name="new_timestep")
        chunks = [part(chunk, StepChunk) for chunk in step.chunks]
        if step.return_head is None:
            returns = g.node("Sub", "return_to_go", "reward", name="new_return_to_go")
            features = self._read(chunks[0], g.node("Cast", returns, to=FLOAT), "", "new_")
        else:
            features = self._read(chunks[0], "", "", "observed_")
            returns = self._affine(step.return_head, features, name=RETURN_HEAD)
            if step.return_head.largest is not None:
                largest = torch.tensor([step.return_head.largest], dtype=torch.float32)
                returns = g.node("Min", returns, _keep(g, largest))
            g.node("Cast", returns, to=DOUBLE, name="new_return_to_go")
            features = self._read(chunks[1], returns, "observed_", "new_")
        _write_action(g, step.actions, self._affine(step.head, features, name=HEAD))

    def _read(self, chunk: StepChunk, returns: str, before: str, after: str) -> str:
        """Features of a chunk's last token, `[batch, width]`.

        Args:
            chunk: which.
            returns: the return-to-go, float32, if the chunk has it.
            before: what the names of the state before the chunk begin with.
            after: what those of the state after it begin with.
        """
        x, added = self._tokens(chunk.embedding, returns), self._added_to_scores(chunk)
        for index, block in enumerate(self._blocks()):
            x = self._block(index, block, chunk, x, added, before, after)
        return self._norm(self.step.norm, x)

    def _added_to_scores(self, chunk: StepChunk) -> str | None:
        """`StepChunk.added_to_scores`."""
        g, tokens = self.g, chunk.tokens
        if tokens == 1:
            return None
        # An episode's first step has no previous action: its row, then that of all other steps.
        added = torch.stack([chunk.absent.view(1, tokens), torch.zeros(1, tokens)])
        if chunk.recency is not None:
            added = added + chunk.recency.view(1, self.step.heads, tokens)
        row = g.node("Gather", _keep(g, added), g.node("Min", "timestep", g.ints(1)))
        return g.reshape(row, -1, *added.shape[1 : self.axis], tokens, 1)

    def _blocks(self) -> list[StepBlock]:
        return [part(block, StepBlock) for block in self.step.blocks]

    def _tokens(self, embedding: StepEmbedding, returns: str) -> str:
        """A chunk, embedded: `[tokens batch, width]`."""
        g, timestep, tokens = self.g, "timestep", embedding.tokens
        values = []
        for kind in embedding.numbers:
            if kind == "return":
                values.append(returns)
            elif kind == "action":
                values.append("previous_action")
            else:
                bounds = (embedding.lowest, embedding.highest) if embedding.clips else None
                values.append(_clipped(g, bounds))
        numbers = g.node("Concat", *values, axis=1) if len(values) > 1 else values[0]
        name = EMBED_RETURN if tokens == 1 else EMBED
        x = self._affine(embedding.linear, numbers, name=name)
        offsets = embedding.time_offsets.cpu().numpy()
        if isinstance(embedding.actions, DiscreteActions) and embedding.looks_up:
            index = "previous_action"
            if embedding.actions.start:
                index = g.node("Sub", index, g.ints(embedding.actions.start))
            looked_up = g.node("Gather", _keep(g, embedding.action_table, "action_table"), index)
            x = g.node("Concat", g.reshape(looked_up, -1, self.width), x, axis=1)
        if embedding.timestep_embedding == "learned":
            times = g.node("Add", timestep, g.ints(*offsets))
            rows = g.node("Gather", _keep(g, embedding.timestep_table, "timestep_table"), times)
            x = g.node("Add", g.reshape(x, -1, tokens, self.width), rows)
        elif embedding.timestep_embedding == "sinusoidal":
            times = g.node("Add", timestep, g.ints(*offsets - 1))
            times = g.reshape(g.node("Cast", times, to=DOUBLE), -1, tokens, 1)
            angles = g.node("Mul", times, g.constant(embedding.frequencies.cpu().numpy()))
            waves = g.node("Concat", g.node("Sin", angles), g.node("Cos", angles), axis=2)
            rows = g.node("Cast", waves, to=FLOAT)
            x = g.node("Add", g.reshape(x, -1, tokens, self.width), rows)
        return self._norm(embedding.norm, g.reshape(x, -1, self.width))

    def _block(
        self,
        index: int,
        block: StepBlock,
        chunk: StepChunk,
        x: str,
        added: str | None,
        before: str,
        after: str,
    ) -> str:
        """`StepBlock`: tokens in, tokens out; the last gives the last token alone.

        `before` and `after` as in `_read`.
        """
        g, heads, last = self.g, self.step.heads, index == len(self.step.blocks) - 1
        tokens = chunk.tokens
        rows = self._affine(block.project, self._norm(block.norm, x))
        if heads == 1:
            rows = g.reshape(rows, -1, tokens, block.dim + 2)
        else:
            rows = g.reshape(rows, -1, tokens, heads, block.dim + 2)
            rows = g.node("Transpose", rows, perm=[0, 2, 1, 3])
        values, scores = g.nodes("Split", rows, g.ints(block.dim + 1, 1), outputs=2, axis=-1)
        if added is not None:
            scores = g.node("Add", scores, added)
        attend = self._attend if self.step.carries_maximum else self._attend_bounded
        sums = attend(index, chunk, values, scores, last, before, after)
        weighted, normalizer = g.nodes("Split", sums, g.ints(block.dim, 1), outputs=2, axis=-1)
        mixed = g.node("Div", weighted, normalizer)
        if heads > 1 and not last:
            mixed = g.node("Transpose", mixed, perm=[0, 2, 1, 3])
        mixed = g.reshape(mixed, -1, heads * block.dim)
        if block.out is not None:
            mixed = self._affine(block.out, mixed)
        if last:
            x = g.reshape(x, -1, tokens, self.width)
            x = g.node("Gather", x, g.constant(np.array(tokens - 1)), axis=1)
        x = g.node("Add", x, mixed)
        half = block.feed_forward
        hidden = self._affine(half.expand, self._norm(half.norm, x))
        if half.relu:
            hidden = g.node("Relu", hidden)
        else:
            hidden = g.node("Gelu", hidden, approximate="tanh")
        return g.node("Add", x, self._affine(half.contract, hidden))

    def _attend_bounded(
        self,
        index: int,
        chunk: StepChunk,
        values: str,
        scores: str,
        last: bool,
        before: str,
        after: str,
    ) -> str:
        """`folded.attend_bounded`: (w, u) after each token, or after the last one."""
        g, state, new, tokens = (
            self.g,
            f"{before}state_{index}",
            f"{after}state_{index}",
            chunk.tokens,
        )
        if chunk.passed is not None:
            state = g.node("Mul", state, _keep(g, (-chunk.passed).exp()))
        state = self._state(state)
        weights = g.node("Exp", scores)
        if last or tokens == 1:
            sums = g.node("MatMul", self._across(weights, tokens), values)
        else:
            upto = g.constant(np.tril(np.ones((tokens, tokens), np.float32)))
            sums = g.node("MatMul", upto, g.node("Mul", values, weights))
        all_sums = g.node("Add", sums, state, name=self._name(new, last))
        self._newest(all_sums, tokens, last, new)
        return all_sums

    def _attend(
        self,
        index: int,
        chunk: StepChunk,
        values: str,
        scores: str,
        last: bool,
        before: str,
        after: str,
    ) -> str:
        """`folded.attend`: the same for scores of any size."""
        g, tokens = self.g, chunk.tokens
        state, maximum = self._state(f"{before}state_{index}"), f"{before}maximum_{index}"
        if chunk.passed is not None:
            maximum = g.node("Sub", maximum, _keep(g, chunk.passed))
        scores = g.node("Concat", self._state(maximum), scores, axis=self.axis)
        mask = chunk.causal[-1:] if last else chunk.causal
        scores = g.node("Add", self._across(scores, tokens + 1), _keep(g, mask))
        new = f"{after}state_{index}", f"{after}maximum_{index}"
        highest = g.node("ReduceMax", scores, g.ints(-1), keepdims=1, name=self._name(new[1], last))
        weights = g.node("Exp", g.node("Sub", scores, highest))
        values = g.node("Concat", state, values, axis=self.axis)
        sums = g.node("MatMul", weights, values, name=self._name(new[0], last))
        self._newest(sums, tokens, last, new[0])
        self._newest(highest, tokens, last, new[1])
        return sums

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

    def _newest(self, after: str, tokens: int, last: bool, name: str) -> None:
        """What is there after the last token, as a state tensor `[batch, heads, size]`."""
        g, alone = self.g, self.step.heads == 1
        if not last:
            newest = np.array([tokens - 1] if alone else tokens - 1)
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


def _write_action(g: GraphWriter, codec: Any, predictions: str) -> None:
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

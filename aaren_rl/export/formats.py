"""The formats of an exported step: a `torch.export` program, and ONNX in 32 and 8 bits."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from aaren_rl.export.steps import Step
from aaren_rl.runtime.card import read_card, read_checked
from aaren_rl.runtime.step_policy import StepPolicy

OPSET = 20
BATCH = 2  # of the example; a batch of one would be taken for a constant
LINEAR = ("Gemm", "MatMul")


def trace(step: Step) -> ExportedProgram:
    """The step's operations, for any number of environments."""
    example = tuple(
        torch.from_numpy(np.zeros(each.sizes(BATCH), dtype=each.dtype)) for each in step.inputs
    )
    batch = {0: torch.export.Dim("batch", min=1)}
    shapes: tuple[object, ...] = (batch,) * len(example)
    if step.state:
        shapes = (shapes,)  # its module takes them as one parameter, `*inputs`
    with torch.no_grad():
        return torch.export.export(step.module, example, dynamic_shapes=shapes)


def torch_program(step: Step) -> bytes:
    """The content of a `.pt2` file."""
    buffer = io.BytesIO()
    torch.export.save(trace(step), buffer)
    return buffer.getvalue()


def onnx_graph(step: Step) -> bytes:
    """The content of an `.onnx` file, of standard operators alone.

    Nodes are named after the module that they come from. The exporter's notes (stack traces, and
    the shapes of intermediate values) are left out: with the shapes ONNX Runtime takes a tenth
    longer, since it then plans its memory otherwise.
    """
    with _quiet("torch.onnx"):
        program = torch.onnx.export(
            trace(step),
            dynamo=True,
            optimize=True,
            opset_version=OPSET,
            input_names=[each.name for each in step.inputs],
            output_names=[each.name for each in step.outputs],
            verbose=False,
        )
    assert program is not None
    model = program.model_proto
    del model.graph.value_info[:], model.metadata_props[:], model.graph.metadata_props[:]
    for node in model.graph.node:
        scopes = {each.key: each.value for each in node.metadata_props}
        path = scopes.get("namespace", "").split("/")[-2:-1]
        node.name = f"{path[0].split(':')[0] if path else ''}/{node.name}"
        node.doc_string = ""
        del node.metadata_props[:]
    for value in (*model.graph.input, *model.graph.output):
        del value.metadata_props[:]
        value.type.tensor_type.shape.dim[0].dim_param = "batch"
    content: bytes = model.SerializeToString(deterministic=True)
    return content


def quantize_int8(content: bytes) -> bytes:
    """The same ONNX graph with its linear layers in 8 bits, activations quantised as they come.

    One scale for each output of a layer. Only the layers within the blocks: the first layer stays
    in float32, since it reads raw numbers of all sizes, which one scale cannot hold; so do the last
    one, what embeds and predicts returns, the norms and the attention. Of an agent without blocks
    all linear layers but the first and the last.
    """
    import onnx
    from onnxruntime.quantization import QuantType, quantize_dynamic

    with _quiet(None), TemporaryDirectory() as folder:
        plain, small = Path(folder, "plain.onnx"), Path(folder, "int8.onnx")
        plain.write_bytes(content)
        quantize_dynamic(
            plain,
            small,
            op_types_to_quantize=list(LINEAR),
            nodes_to_exclude=_full_precision(onnx.load_from_string(content)),
            per_channel=True,
            weight_type=QuantType.QInt8,
        )
        return small.read_bytes()


def _full_precision(model: Any) -> list[str]:
    """Linear nodes that stay as they are; the quantiser makes MatMuls of Gemms and renames them."""
    constants = {each.name for each in model.graph.initializer}
    linear = [
        node.name
        for node in model.graph.node
        if node.op_type in LINEAR and not constants.isdisjoint(node.input)
    ]
    blocks = [name for name in linear if "blocks." in name] or linear[1:-1]
    kept = [name for name in linear if name not in blocks]
    return kept + [f"{name}_MatMul" for name in kept]


@contextmanager
def _quiet(name: str | None) -> Iterator[None]:
    """Without the advice that exporters log and warn of, which is for their own developers."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


class ProgramPolicy(StepPolicy):
    """Acts as `OnnxPolicy` does, with what `--format torch-export` wrote."""

    def __init__(self, file: Path, num_envs: int = 1, target_return: float | None = None) -> None:
        super().__init__(file, read_card(file), num_envs, target_return)
        content = io.BytesIO(read_checked(file, self.card))
        self._program = torch.export.load(content).module()

    @torch.inference_mode()
    def _run(self, turn: int) -> None:
        outputs = self._program(*map(torch.from_numpy, self._arrays_in(turn)))
        for array, output in zip(self._arrays_out(turn), outputs, strict=True):
            array[...] = output.numpy()

"""The bytes of an exported step: a `torch.export` program, or an ONNX graph made from it."""

from __future__ import annotations

import io
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch.export import ExportedProgram

from aaren_rl.export.steps import Step

OPSET = 20
BATCH = 2  # of the example; a batch of one would be taken for a constant


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
    with _quiet():
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


@contextmanager
def _quiet() -> Iterator[None]:
    """Without the exporter's advice, which is for its own developers."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)

"""Weights in 8 bits: a quarter of the file, for a loss of score that is measured, not promised."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

import onnx
from onnxruntime.quantization import QuantType, quantize_dynamic

LINEAR = ("Gemm", "MatMul")


def quantize_int8(content: bytes) -> bytes:
    """The same graph with its linear layers in 8 bits, activations quantised as they come.

    One scale for each output of a layer. Only the layers within the blocks: the first layer stays
    in float32, for it sees raw numbers of all sizes, which one scale cannot hold; so do the last
    one, what embeds and predicts returns, the norms and the attention. Of an agent without blocks
    all linear layers but the first and the last.

    Args:
        content: an ONNX file of `aaren_rl.export.formats`.
    """
    root = logging.getLogger()
    level = root.level
    root.setLevel(logging.ERROR)  # it advises on every call to simplify the graph first
    try:
        with TemporaryDirectory() as folder:
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
    finally:
        root.setLevel(level)


def _full_precision(model: onnx.ModelProto) -> list[str]:
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

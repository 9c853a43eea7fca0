"""Weights in 8 bits: a quarter of the file, for a loss of score that is measured, not promised."""

from __future__ import annotations

import logging
from pathlib import Path
from tempfile import TemporaryDirectory

from onnxruntime.quantization import QuantType, quantize_dynamic

from aaren_rl.export.onnx_step import EMBED, EMBED_RETURN, HEAD, RETURN_HEAD

FULL_PRECISION = (EMBED, HEAD, EMBED_RETURN, RETURN_HEAD)


def quantize_int8(content: bytes) -> bytes:
    """The same graph with its linear layers in 8 bits, activations quantised as they come.

    One scale for each output of a layer. The first layer stays in float32, for it sees raw numbers
    of all sizes, which one scale cannot hold; so do the last one, what embeds and predicts returns,
    the norms and the attention.

    Args:
        content: an ONNX file.
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
                op_types_to_quantize=["MatMul", "Gemm"],
                # It makes MatMuls of Gemms first, and names them so.
                nodes_to_exclude=[f"{name}_MatMul" for name in FULL_PRECISION],
                per_channel=True,
                weight_type=QuantType.QInt8,
            )
            return small.read_bytes()
    finally:
        root.setLevel(level)

"""A small writer of ONNX graphs: it names values, and stores a constant once."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
    checker,
    helper,
    numpy_helper,
)

from aaren_rl.runtime.card import Tensor

OPSET, IR_VERSION = 20, 10
FLOAT, DOUBLE = int(TensorProto.FLOAT), int(TensorProto.DOUBLE)
_TYPES = {
    "float32": FLOAT,
    "float64": DOUBLE,
    "int64": int(TensorProto.INT64),
    "bool": int(TensorProto.BOOL),
}


class GraphWriter:
    """Nodes and constants, written down in the order in which they are needed."""

    def __init__(self) -> None:
        self._nodes: list[NodeProto] = []
        self._constants: dict[str, TensorProto] = {}
        self._by_content: dict[tuple[str, tuple[int, ...], bytes], str] = {}

    def constant(self, values: np.ndarray, name: str = "") -> str:
        """A stored tensor, in the array's own dtype."""
        key = (str(values.dtype), values.shape, values.tobytes())
        if key not in self._by_content:
            name = name or f"constant_{len(self._constants)}"
            self._by_content[key] = name
            self._constants[name] = numpy_helper.from_array(np.asarray(values, order="C"), name)
        return self._by_content[key]

    def ints(self, *values: int) -> str:
        """A stored int64 vector: shapes, axes, sizes."""
        return self.constant(np.array(values, dtype=np.int64))

    def nodes(self, kind: str, *inputs: str, outputs: int = 1, **attributes: Any) -> list[str]:
        """Append a node with several outputs and return their names."""
        names = [f"{kind.lower()}_{len(self._nodes)}_{k}" for k in range(outputs)]
        self._nodes.append(helper.make_node(kind, list(inputs), names, names[0], **attributes))
        return names

    def node(self, kind: str, *inputs: str, name: str = "", **attributes: Any) -> str:
        """Append a node with one output and return its name."""
        name = name or f"{kind.lower()}_{len(self._nodes)}"
        self._nodes.append(helper.make_node(kind, list(inputs), [name], name, **attributes))
        return name

    def reshape(self, value: str, *shape: int) -> str:
        """The same numbers in another shape; one size may be -1."""
        return self.node("Reshape", value, self.ints(*shape))

    def model(self, name: str, inputs: Sequence[Tensor], outputs: Sequence[Tensor]) -> ModelProto:
        """The finished graph, checked for form and shapes; inputs and outputs are known by name."""
        graph = helper.make_graph(
            self._nodes,
            name,
            [_value_info(each) for each in inputs],
            [_value_info(each) for each in outputs],
            list(self._constants.values()),
        )
        model = helper.make_model(
            graph,
            producer_name="aaren-rl",
            opset_imports=[helper.make_opsetid("", OPSET)],
            ir_version=IR_VERSION,
        )
        checker.check_model(model, full_check=True)
        return model


def _value_info(tensor: Tensor) -> ValueInfoProto:
    return helper.make_tensor_value_info(tensor.name, _TYPES[tensor.dtype], tensor.shape)

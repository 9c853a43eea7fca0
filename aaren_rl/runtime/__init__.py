"""Acting with an exported agent. Needs NumPy and onnxruntime only; torch is never imported."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.runtime.card import Card, read_card
    from aaren_rl.runtime.onnx_policy import OnnxPolicy

__all__ = ["Card", "OnnxPolicy", "read_card"]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

"""Acting with an exported agent. Needs numpy and onnxruntime only; torch is never imported."""

from aaren_rl.runtime.card import Card, read_card
from aaren_rl.runtime.onnx_policy import OnnxPolicy

__all__ = ["Card", "OnnxPolicy", "read_card"]

"""Acting with an exported agent. Needs numpy and onnxruntime only; torch is never imported."""

from typing import TYPE_CHECKING, Any

from aaren_rl.runtime.card import Card, read_card

if TYPE_CHECKING:
    from aaren_rl.runtime.onnx_policy import OnnxPolicy

__all__ = ["Card", "OnnxPolicy", "read_card"]


def __getattr__(name: str) -> Any:
    """Import the policy when it is asked for: cards can be read without onnxruntime."""
    if name == "OnnxPolicy":
        from aaren_rl.runtime.onnx_policy import OnnxPolicy

        return OnnxPolicy
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")

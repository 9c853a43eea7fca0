"""A trained agent's acting step as one file: ONNX or a torch.export program."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.export.command import export, onnx_policies
    from aaren_rl.export.config import ExportConfig

__all__ = ["ExportConfig", "export", "onnx_policies"]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

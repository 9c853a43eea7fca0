"""A trained agent's acting step as one file: ONNX or a torch.export program."""

from aaren_rl.export.command import ExportConfig, export
from aaren_rl.export.policies import onnx_policies

__all__ = ["ExportConfig", "export", "onnx_policies"]

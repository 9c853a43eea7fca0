"""A trained agent's acting step as one file: ONNX or a torch.export program."""

from aaren_rl.export.command import ExportConfig, export

__all__ = ["ExportConfig", "export"]

"""D4RL's HDF5 files to Minari datasets and back, block by block and without losing a step."""

from aaren_rl.convert.command import ConvertConfig, convert

__all__ = ["ConvertConfig", "convert"]

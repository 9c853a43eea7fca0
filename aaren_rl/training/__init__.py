"""Training: a config in, a run folder out."""

from aaren_rl.training.compare import CompareConfig, compare
from aaren_rl.training.config import TrainConfig
from aaren_rl.training.interrupt import Interrupted
from aaren_rl.training.presets import from_preset
from aaren_rl.training.run import train

__all__ = ["CompareConfig", "Interrupted", "TrainConfig", "compare", "from_preset", "train"]

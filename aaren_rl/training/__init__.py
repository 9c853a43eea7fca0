"""Training: a config in, a run folder out."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.training.config import TrainConfig
    from aaren_rl.training.interrupt import Interrupted
    from aaren_rl.training.presets import from_preset
    from aaren_rl.training.run import train

__all__ = ["Interrupted", "TrainConfig", "from_preset", "train"]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

"""Attention as a recurrent network, for offline reinforcement learning.

    import aaren_rl as arl

Importing this package is cheap: each name below imports what it needs when it is first used.
"""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.agents import load_agent, register_agent
    from aaren_rl.data import TrajectoryDataset, load_dataset, register_source
    from aaren_rl.evaluation import evaluate
    from aaren_rl.layers import register_encoder, register_head, register_mixer
    from aaren_rl.training import (
        Callback,
        CSVLogger,
        Logger,
        MLflowLogger,
        StopTraining,
        TensorBoardLogger,
        WandbLogger,
        finetune,
        register_logger,
        train,
    )

__version__ = "0.1.0"
__all__ = [
    "CSVLogger",
    "Callback",
    "Logger",
    "MLflowLogger",
    "StopTraining",
    "TensorBoardLogger",
    "TrajectoryDataset",
    "WandbLogger",
    "evaluate",
    "finetune",
    "load_agent",
    "load_dataset",
    "register_agent",
    "register_encoder",
    "register_head",
    "register_logger",
    "register_mixer",
    "register_source",
    "train",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

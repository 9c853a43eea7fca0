"""Training: data and settings in, a trained agent and a run folder out.

`train` does it all. A loop by hand needs only the parts that it is made of: a sampler gives
batches (`aaren_rl.data.sampling.Batch` says what is in them), and the agent gives their loss.

    data = load_dataset("aaren-rl/hopper-small-v0")
    agent = build_agent(TrainConfig(), data, environment="Hopper-v5")
    sampler = WindowSampler(data, batch_size=64, context_length=20, seed=0)
    optimizer = torch.optim.AdamW(agent.parameters(), lr=1e-3)
    for _ in range(1000):
        loss = agent.loss(sampler.sample())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    agent.save("my-agent")
"""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.training.build import build_agent
    from aaren_rl.training.callbacks import Callback, StopTraining, TrainerView
    from aaren_rl.training.config import TrainConfig
    from aaren_rl.training.interrupt import Interrupted
    from aaren_rl.training.loggers import (
        LOGGERS,
        CSVLogger,
        Logger,
        MLflowLogger,
        RunInfo,
        TensorBoardLogger,
        WandbLogger,
        register_logger,
    )
    from aaren_rl.training.online.config import FinetuneConfig
    from aaren_rl.training.online.run import finetune
    from aaren_rl.training.presets import from_preset
    from aaren_rl.training.run import train
    from aaren_rl.training.run_folder import RunFolder
    from aaren_rl.training.trained_run import TrainedRun

__all__ = [
    "LOGGERS",
    "CSVLogger",
    "Callback",
    "FinetuneConfig",
    "Interrupted",
    "Logger",
    "MLflowLogger",
    "RunFolder",
    "RunInfo",
    "StopTraining",
    "TensorBoardLogger",
    "TrainConfig",
    "TrainedRun",
    "TrainerView",
    "WandbLogger",
    "build_agent",
    "finetune",
    "from_preset",
    "register_logger",
    "train",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

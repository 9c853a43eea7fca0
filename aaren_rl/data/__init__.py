"""Trajectories in, batches out."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.data.episode import Recording, Trajectory
    from aaren_rl.data.sampling import Batch, EpisodeSampler, Sampler, StreamSampler, WindowSampler
    from aaren_rl.data.sources.load import load_dataset, load_trajectories
    from aaren_rl.data.sources.registry import SOURCES, register_source
    from aaren_rl.data.spaces import flat_size, flatten_batch
    from aaren_rl.data.trajectory import TrajectoryDataset

__all__ = [
    "SOURCES",
    "Batch",
    "EpisodeSampler",
    "Recording",
    "Sampler",
    "StreamSampler",
    "Trajectory",
    "TrajectoryDataset",
    "WindowSampler",
    "flat_size",
    "flatten_batch",
    "load_dataset",
    "load_trajectories",
    "register_source",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

"""Trajectories in, batches out."""

from aaren_rl.data.episodes import EpisodeSampler
from aaren_rl.data.sampling import Batch, Sampler, WindowSampler
from aaren_rl.data.sources.load import load_trajectories
from aaren_rl.data.spaces import flat_size, flatten_batch
from aaren_rl.data.streams import StreamSampler
from aaren_rl.data.trajectory import Trajectory, TrajectoryDataset

__all__ = [
    "Batch",
    "EpisodeSampler",
    "Sampler",
    "StreamSampler",
    "Trajectory",
    "TrajectoryDataset",
    "WindowSampler",
    "flat_size",
    "flatten_batch",
    "load_trajectories",
]

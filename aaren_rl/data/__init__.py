"""Trajectories in, batches out."""

from aaren_rl.data.sampling import Batch, WindowSampler
from aaren_rl.data.sources import load_trajectories
from aaren_rl.data.spaces import flat_size, flatten_batch
from aaren_rl.data.trajectory import Trajectory, TrajectoryDataset

__all__ = [
    "Batch",
    "Trajectory",
    "TrajectoryDataset",
    "WindowSampler",
    "flat_size",
    "flatten_batch",
    "load_trajectories",
]

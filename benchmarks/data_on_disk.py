"""Training from the disk against training from memory: speed, and memory for very long data.

    python -m benchmarks.data_on_disk --folder SCRATCH

Writes files in D4RL's layout that repeat a real dataset, so that the numbers are real and the
length is free, and trains on them in processes that may have so much memory for data and no more.
"""

from __future__ import annotations

import json
import math
import os
import resource
import statistics
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import h5py
import numpy as np
import torch
import tyro

from aaren_rl.data import TrajectoryDataset, load_trajectories
from aaren_rl.training import TrainConfig
from aaren_rl.training.build import build_agent, make_sampler, split
from benchmarks.timing import save, take_turns

CHILD = "import sys; from benchmarks.data_on_disk import train_once; train_once(sys.argv[1])"


@dataclass(frozen=True)
class Config:
    """What to measure."""

    folder: Path
    """Scratch folder for the files; the long one needs about 140 bytes a step there."""
    dataset: str = "aaren-rl/hopper-small-v0"
    """What the files repeat."""
    short_steps: int = 2_000_000
    """Steps of the file that memory holds too."""
    long_steps: int = 100_000_000
    """Steps of the file that it does not; 0: none."""
    memory_gigabytes: float = 2.0
    """Data (RLIMIT_DATA: what is not a file) that a process may have with the long file."""
    updates: int = 300
    """Updates of each training."""
    turns: int = 15
    """Turns in which memory and disk are timed beside each other."""
    out: Path | None = None
    """Where the figures go; by default benchmarks/results/data_on_disk.json."""


def main(config: Config) -> None:
    """Measure, print and write."""
    torch.set_num_threads(1)
    data = load_trajectories(config.dataset)
    short = repeated(config, data, config.short_steps)
    result: dict[str, Any] = {
        "dataset": config.dataset,
        "short": {"steps": config.short_steps, **compare(config, short)},
    }
    if config.long_steps:
        result["long"] = long_data(config, repeated(config, data, config.long_steps))
    print(json.dumps(result, indent=2))
    print(save("data_on_disk", result, config.out))


def repeated(config: Config, data: TrajectoryDataset, steps: int) -> Path:
    """A file in D4RL's layout with `data` again and again, `steps` steps in all."""
    file = config.folder / f"hopper-repeated-{steps}-v2.hdf5"
    if file.exists():
        return file
    ends = np.zeros((2, data.num_steps), bool)
    ends[:, data.offsets[1:] - 1] = data.terminated, data.truncated
    arrays: dict[str, Any] = {
        "observations": data.observations,
        "actions": data.actions,
        "rewards": data.rewards.astype(np.float32),
        "terminals": ends[0],
        "timeouts": ends[1],
    }
    aside = file.with_suffix(".part")
    with h5py.File(aside, "w") as target:
        nodes = {
            name: target.create_dataset(name, (steps, *values.shape[1:]), values.dtype)
            for name, values in arrays.items()
        }
        for start in range(0, steps, data.num_steps):
            stop = min(start + data.num_steps, steps)
            for name, values in arrays.items():
                nodes[name][start:stop] = values[: stop - start]
    aside.rename(file)
    return file


def compare(config: Config, file: Path) -> dict[str, Any]:
    """Batches and updates from memory and from the disk, timed in turns."""
    learners = {on: Learner(file, on, config.folder / "cache") for on in ("memory", "disk")}
    batches = take_turns({on: it.sampler.sample for on, it in learners.items()}, turns=config.turns)
    updates = take_turns({on: it.update for on, it in learners.items()}, turns=config.turns)
    return {
        "sample_seconds": {on: timing.record() for on, timing in batches.items()},
        "update_seconds": {on: timing.record() for on, timing in updates.items()},
        "update_disk_over_memory": updates["disk"].over(updates["memory"]),
    }


class Learner:
    """An agent of the default size in training, on a file that is read in one of both ways."""

    def __init__(self, file: Path, on: Literal["memory", "disk"], cache: Path) -> None:
        settings = TrainConfig(dataset=str(file))
        start = time.perf_counter()
        self.data = load_trajectories(file, on=on, cache=cache)
        self.read_seconds = time.perf_counter() - start
        training, _ = split(self.data, settings.held_out)
        self.agent = build_agent(settings, training, None)
        self.ready_seconds = time.perf_counter() - start
        self.optimizer = torch.optim.AdamW(self.agent.parameters(), lr=1e-4, fused=True)
        self.sampler = make_sampler(settings, training, 0, 1)

    def update(self) -> float:
        """One update; the loss."""
        self.optimizer.zero_grad()
        loss = self.agent(self.sampler.sample())
        loss.backward()
        self.optimizer.step()
        return float(loss.detach())


def long_data(config: Config, file: Path) -> dict[str, Any]:
    """The first training, which writes the cache, and one that finds it there."""
    limit = int(config.memory_gigabytes * 2**30)
    first, again = (child(config, file, limit) for _ in range(2))
    return {"bytes": file.stat().st_size, "data_limit_bytes": limit, "first": first, "again": again}


def child(config: Config, file: Path, limit: int) -> dict[str, Any]:
    """Train in a process of its own that may have `limit` bytes of data; what it found."""
    task = [str(file), str(config.folder / "cache"), config.updates, limit]
    process = subprocess.run(
        [sys.executable, "-c", CHILD, json.dumps(task)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.PIPE,
        check=True,
    )
    found: dict[str, Any] = json.loads(process.stdout)
    return found


def train_once(task: str) -> None:
    """What `child` runs; prints JSON."""
    file, cache, updates, limit = json.loads(task)
    resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
    torch.set_num_threads(1)
    learner = Learner(Path(file), "disk", Path(cache))
    forget(Path(cache))
    before = storage_bytes()
    batches, seconds = [], []
    for _ in range(updates):
        start = time.perf_counter()
        learner.sampler.sample()
        batches.append(time.perf_counter() - start)
        start = time.thread_time()
        loss = learner.update()
        seconds.append(time.thread_time() - start)
    assert math.isfinite(loss)
    read = (storage_bytes() - before) / (2 * updates)
    found = {
        "steps": learner.data.num_steps,
        "episodes": learner.data.num_episodes,
        "read_seconds": learner.read_seconds,
        "ready_seconds": learner.ready_seconds,
        "update_thread_seconds_median": statistics.median(seconds),
        "cold_sample_wall_seconds_median": statistics.median(batches),
        "cold_sample_wall_seconds_mean": statistics.mean(batches),
        "storage_bytes_a_batch": read,
        "loss": loss,
        **memory(),
    }
    print(json.dumps(found))


def forget(cache: Path) -> None:
    """Have the system drop what it keeps of the files: the next reads come from the disk."""
    for file in cache.rglob("*.bin"):
        descriptor = os.open(file, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def storage_bytes() -> int:
    """Bytes that this process has had read from the disk."""
    lines = Path("/proc/self/io").read_text().splitlines()
    return int(next(line for line in lines if line.startswith("read_bytes")).split()[1])


def memory() -> dict[str, int]:
    """Bytes of this process: the most that were resident, files' pages included; not files, now."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    names = {"peak_resident": "VmHWM", "resident_not_files": "RssAnon"}
    return {name: int(values[key].split()[0]) << 10 for name, key in names.items()}


if __name__ == "__main__":
    main(tyro.cli(Config))

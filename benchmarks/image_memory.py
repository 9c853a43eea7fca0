"""Frames on the disk: how many bytes they take there, and how much memory training on them takes.

    python -m benchmarks.image_memory --folder SCRATCH

Writes a file of random frames in D4RL's layout, has it copied into the cache, and trains on it from
there, each in a process of its own whose memory is watched. Needs twice the frames' bytes in the
folder (5.6 GB by default), and removes them.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import torch
import tyro

import aaren_rl as arl
from benchmarks.timing import save

SHAPE = (84, 84, 4)
EPISODE = 500  # steps
FIELDS = {"resident": "VmRSS", "resident_not_files": "RssAnon", "resident_files": "RssFile"}


@dataclass(frozen=True)
class Config:
    """What to measure."""

    folder: Path
    """Scratch folder."""
    steps: int = 100_000
    """Frames, of 84 x 84 x 4 bytes each."""
    updates: int = 150
    """Updates of the training, by default enough to read more than a gigabyte of frames."""
    batch_size: int = 16
    """Sequences in a batch."""
    context_length: int = 20
    """Steps of a sequence."""
    out: Path | None = None
    """Where the figures go; by default benchmarks/results/image_memory.json."""


def main(config: Config) -> None:
    """Measure, print and write."""
    config.folder.mkdir(parents=True, exist_ok=True)
    file, cache = config.folder / "frames-v0.hdf5", config.folder / "cache"
    shutil.rmtree(cache, ignore_errors=True)
    frames = config.steps * int(np.prod(SHAPE))
    try:
        write_frames(file, config.steps)
        result: dict[str, Any] = {"steps": config.steps, "shape": SHAPE, "frame_bytes": frames}
        result["copying"] = child(["copy", str(file), str(cache)])
        file.unlink()
        disk = sum(each.stat().st_size for each in cache.rglob("*") if each.is_file())
        result |= {"disk_bytes": disk, "disk_over_frames": disk / frames}
        sizes = [str(config.updates), str(config.batch_size), str(config.context_length)]
        result["training"] = child(["train", str(cache), *sizes])
        read = config.updates * config.batch_size * config.context_length * int(np.prod(SHAPE))
        result["training"]["frame_bytes_read"] = read
    finally:
        file.unlink(missing_ok=True)
        shutil.rmtree(cache, ignore_errors=True)
    print(json.dumps(result, indent=2))
    print(save("image_memory", result, config.out))


def write_frames(file: Path, steps: int) -> None:
    """Random pixels, which no file system packs, in episodes of `EPISODE` steps."""
    rng = np.random.default_rng(0)
    block = rng.integers(0, 256, (EPISODE, *SHAPE), np.uint8)
    with h5py.File(file, "w") as target:
        frames = target.create_dataset("observations", (steps, *SHAPE), np.uint8)
        for start in range(0, steps, EPISODE):
            stop = min(start + EPISODE, steps)
            frames[start:stop] = np.roll(block, start // EPISODE, axis=1)[: stop - start]
        target["actions"] = rng.uniform(-1, 1, (steps, 2)).astype(np.float32)
        target["rewards"] = rng.random(steps).astype(np.float32)
        ends = np.zeros((2, steps), bool)
        ends[1, EPISODE - 1 :: EPISODE] = True
        target["terminals"], target["timeouts"] = ends


def child(task: list[str]) -> dict[str, Any]:
    """Do a task in a process of its own; the most memory that it had."""
    code = "import sys; from benchmarks.image_memory import work; work(sys.argv[1:])"
    process = subprocess.run([sys.executable, "-c", code, *task], stdout=subprocess.PIPE)
    if process.returncode:
        raise SystemExit(process.returncode)
    found: dict[str, Any] = json.loads(process.stdout.splitlines()[-1])
    return found


def work(task: list[str]) -> None:
    """What `child` runs; prints JSON."""
    torch.set_num_threads(1)
    tasks: dict[str, Callable[..., None]] = {"copy": copy, "train": train}
    start = time.perf_counter()
    with Watch() as watch:
        imported = status()["VmRSS"]
        tasks[task[0]](*task[1:])
    peaks = {f"peak_{name}": watch.peaks[key] for name, key in FIELDS.items()}
    found = {"seconds": time.perf_counter() - start, "resident_before": imported, **peaks}
    print(json.dumps({**found, "peak_of_kernel": status()["VmHWM"]}))


def copy(file: str, cache: str) -> None:
    """Copy the frames into the cache."""
    data = arl.load_dataset(file, on="disk", cache=Path(cache))
    assert data.observations.dtype == np.uint8


def train(cache: str, updates: str, batch_size: str, context_length: str) -> None:
    """Train on the entry of the cache."""
    from aaren_rl.data.disk import open_dataset

    (entry,) = [each for each in Path(cache).iterdir() if each.is_dir()]
    arl.train(
        open_dataset(entry),
        env="none",
        updates=int(updates),
        batch_size=int(batch_size),
        context_length=int(context_length),
        precision="32",
    )


class Watch:
    """Looks every 20 ms at this process' memory and keeps the most of each kind, in bytes."""

    def __init__(self) -> None:
        self.peaks = dict.fromkeys(FIELDS.values(), 0)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._look)

    def __enter__(self) -> Watch:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _look(self) -> None:
        while not self._done.wait(0.02):
            now = status()
            self.peaks = {key: max(most, now[key]) for key, most in self.peaks.items()}


def status() -> dict[str, int]:
    """Bytes of this process by the kernel's names."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return {key: int(values[key].split()[0]) << 10 for key in (*FIELDS.values(), "VmHWM")}


if __name__ == "__main__":
    main(tyro.cli(Config))

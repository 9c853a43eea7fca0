"""One contender's whole episode, in a process of its own: time, state and memory by step.

Run by `benchmarks.acting`:  python -m benchmarks.acting_curve NAME FOLDER STEPS
"""

from __future__ import annotations

import ctypes
import gc
import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.acting_contenders import OBSERVATION_SIZE, make

WARM_UP = 30  # steps of an episode before the one that is measured
TABLE_ROWS = 19_000  # an episode in the memory test ends here, before the timestep table does


def resident() -> int | None:
    """Bytes of this process in memory (Linux)."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return None


def use_one_thread() -> None:
    """For torch, if it is here at all."""
    if "torch" in sys.modules:
        sys.modules["torch"].set_num_threads(1)


def marks(steps: int) -> list[int]:
    """Steps at which the state and the process are looked at, evenly on a logarithmic scale."""
    return sorted({round(step) for step in np.geomspace(1, steps, 60)})


def measure_curve(name: str, folder: Path, steps: int) -> dict[str, Any]:
    """Act for `steps` steps; this thread's seconds for each, bytes at the marks."""
    contender = make(name, folder)
    use_one_thread()
    rng = np.random.default_rng(0)
    observations = rng.normal(size=(256, 1, OBSERVATION_SIZE))
    reward, no, yes = np.full(1, 0.1), np.zeros(1, bool), np.ones(1, bool)
    for step in range(WARM_UP):
        contender.act(observations[step], reward, yes if step == 0 else no)
    gc.collect()
    gc.disable()
    seconds = np.zeros(steps)
    looks = set(marks(steps))
    states, processes = [], []
    for step in range(steps):
        observation, done = observations[step % 256], yes if step == 0 else no
        start = time.thread_time()
        contender.act(observation, reward, done)
        seconds[step] = time.thread_time() - start
        if step + 1 in looks:
            states.append(contender.state_bytes())
            processes.append(resident())
    at = marks(steps)
    cumulated = np.cumsum(seconds)
    return {
        "steps": at,
        "cumulated_seconds": [float(cumulated[step - 1]) for step in at],
        "step_microseconds": [_around(seconds, step - 1) for step in at],
        "state_bytes": states,
        "process_bytes": processes,
        "torch_imported": "torch" in sys.modules,
    }


def measure_memory(name: str, folder: Path, steps: int) -> dict[str, Any]:
    """By how much the process grows over so many steps, after a first thousand."""
    contender = make(name, folder)
    use_one_thread()
    observation = np.random.default_rng(0).normal(size=(1, OBSERVATION_SIZE))
    reward, done, before = np.full(1, 0.1), np.zeros(1, bool), resident()
    for step in range(steps + 1000):
        if step == 1000:
            gc.collect()
            ctypes.CDLL(None).malloc_trim(0)
            before = resident()
        done[0] = step % TABLE_ROWS == 0
        contender.act(observation, reward, done)
    after = resident()
    grown = None if before is None or after is None else after - before
    return {"steps": steps, "process_growth_bytes": grown}


def _around(seconds: np.ndarray, step: int) -> float:
    """Median of the (up to) 100 steps around one, microseconds."""
    return float(np.median(seconds[max(0, step - 50) : step + 50])) * 1e6


if __name__ == "__main__":
    what, name, folder, steps = sys.argv[1:]
    measure = {"curve": measure_curve, "memory": measure_memory}[what]
    print(json.dumps(measure(name, Path(folder), int(steps))))

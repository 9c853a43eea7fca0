"""Run a benchmark that is killed with all of its workers at random moments until it is through.

    python kill_sweep.py SPEC.yaml OUT KILLS

Prints how often it killed. Forks of a process that has imported everything start at once.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import random
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from aaren_rl.experiments import BenchmarkConfig, benchmark, local


@contextlib.contextmanager
def forks(threads: int) -> Iterator[tuple[Any, int]]:
    yield multiprocessing.get_context("fork"), threads


def kill_all(main: int) -> None:
    """The sweep and its workers, at one moment."""
    children = Path(f"/proc/{main}/task/{main}/children")
    workers = [int(each) for each in children.read_text().split()] if children.exists() else []
    for process in (main, *workers):
        with contextlib.suppress(ProcessLookupError):
            os.kill(process, signal.SIGKILL)


def main() -> None:
    config = BenchmarkConfig(Path(sys.argv[1]), out=Path(sys.argv[2]), workers=2)
    kills = int(sys.argv[3])
    torch.set_num_threads(1)
    local._process_context = forks
    moments = random.Random(os.urandom(8))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            benchmark(config)
            os._exit(0)
        if done < kills:
            time.sleep(moments.uniform(0.05, 1.5))
            kill_all(child)
            done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            break
    print(done)


if __name__ == "__main__":
    main()

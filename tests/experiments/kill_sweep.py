"""Run a benchmark that is killed at random moments until it is through.

    python kill_sweep.py SPEC.yaml OUT KILLS

Prints how often it killed. Forks of a process that has imported everything start at once.
"""

from __future__ import annotations

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from aaren_rl.experiments import BenchmarkConfig, benchmark


def main() -> None:
    config = BenchmarkConfig(Path(sys.argv[1]), out=Path(sys.argv[2]), workers=1)
    kills = int(sys.argv[3])
    torch.set_num_threads(1)
    moments = random.Random(os.urandom(8))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            benchmark(config)
            os._exit(0)
        if done < kills:
            time.sleep(moments.uniform(0.05, 1.5))
            os.kill(child, signal.SIGKILL)
            done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            break
    print(done)


if __name__ == "__main__":
    main()

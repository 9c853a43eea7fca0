"""Collect in a child process that is killed at random moments and resumed until it is through.

    python kill_collect.py FOLDER KIND KILLS

Prints how often it killed. A fork of a process that has imported everything starts at once.
"""

from __future__ import annotations

import dataclasses
import os
import random
import signal
import sys
import time
from pathlib import Path

import stable_baselines3  # noqa: F401
import torch
from collect_cases import MAKERS

from aaren_rl.collect import collect


def main() -> None:
    folder, kind, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    config = dataclasses.replace(MAKERS[kind](folder), resume=True)
    torch.set_num_threads(1)
    moments = random.Random(os.urandom(8))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            collect(config)
            os._exit(0)
        if done < kills:
            time.sleep(moments.uniform(0.05, 1.0))
            os.kill(child, signal.SIGKILL)
            done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            break
    print(done)


if __name__ == "__main__":
    main()

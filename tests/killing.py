"""Work in a child process that is killed at random moments and begun again until it is through."""

from __future__ import annotations

import os
import random
import signal
import time
from collections.abc import Callable

import torch


def until_through(work: Callable[[], object], kills: int, earliest: float, latest: float) -> int:
    """Fork, work, and be killed; the fork of a process that has imported everything starts at once.

    Args:
        work: done in each child; it must go on from what the last one left.
        kills: how many children are killed at the most.
        earliest: seconds after which a child is killed, at least.
        latest: at most.

    Returns:
        How many were killed.
    """
    torch.set_num_threads(1)
    moments = random.Random(os.urandom(8))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            work()
            os._exit(0)
        if done < kills:
            time.sleep(moments.uniform(earliest, latest))
            os.kill(child, signal.SIGKILL)
            done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            return done

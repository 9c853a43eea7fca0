"""Train in a child process that is killed at random moments and resumed until it is through.

    python kill_loop.py RUN_FOLDER CONFIG.json KILLS

Prints how often it killed. A fork of a process that has imported everything starts at once.
"""

from __future__ import annotations

import dataclasses
import json
import os
import random
import signal
import sys
import time
from pathlib import Path

import torch

from aaren_rl.training import TrainConfig, train


def main() -> None:
    folder, file, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = TrainConfig.from_json(json.loads(file.read_text()), file)
    config = dataclasses.replace(config, out=folder, resume=True)
    torch.set_num_threads(1)
    moments = random.Random(os.urandom(8))
    done = 0
    while True:
        child = os.fork()
        if child == 0:
            train(config)
            os._exit(0)
        if done < kills:
            time.sleep(moments.uniform(0.1, 0.6))
            os.kill(child, signal.SIGKILL)
            done += 1
        _, status = os.waitpid(child, 0)
        if os.WIFEXITED(status):
            assert os.WEXITSTATUS(status) == 0, status
            break
    print(done)


if __name__ == "__main__":
    main()

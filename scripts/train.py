"""Command line of `aaren-rl train`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.training import TrainConfig

if __name__ == "__main__":
    sys.exit(run(TrainConfig))

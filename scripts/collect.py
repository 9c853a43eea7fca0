"""Command line of `aaren-rl collect`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.collect import CollectConfig

if __name__ == "__main__":
    sys.exit(run(CollectConfig))

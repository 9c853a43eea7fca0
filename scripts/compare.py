"""Command line of `aaren-rl compare`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.training import CompareConfig

if __name__ == "__main__":
    sys.exit(run(CompareConfig))

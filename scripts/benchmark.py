"""Command line of `aaren-rl benchmark`; see `--help`."""

import sys

from aaren_rl.benchmark import BenchmarkConfig
from aaren_rl.cli import run

if __name__ == "__main__":
    sys.exit(run(BenchmarkConfig))

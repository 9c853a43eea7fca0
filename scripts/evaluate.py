"""Command line of `aaren-rl evaluate`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.evaluation import EvaluateConfig

if __name__ == "__main__":
    sys.exit(run(EvaluateConfig))

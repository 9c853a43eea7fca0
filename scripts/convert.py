"""Command line of `aaren-rl convert`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.convert import ConvertConfig

if __name__ == "__main__":
    sys.exit(run(ConvertConfig))

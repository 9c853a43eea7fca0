"""Command line of `aaren-rl export`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.export import ExportConfig

if __name__ == "__main__":
    sys.exit(run(ExportConfig))

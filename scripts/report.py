"""Command line of `aaren-rl report`; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.report import ReportConfig

if __name__ == "__main__":
    sys.exit(run(ReportConfig))

"""What `make quickstart` runs; see `--help`."""

import sys

from aaren_rl.cli import run
from aaren_rl.training.quickstart import QuickstartConfig

if __name__ == "__main__":
    sys.exit(run(QuickstartConfig))

"""Command line of `aaren-rl report`; see `--help`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["report", *sys.argv[1:]]))

"""Command line of `aaren-rl export`; see `--help`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["export", *sys.argv[1:]]))

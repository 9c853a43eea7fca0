"""Command line of `aaren-rl collect`; see `--help`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["collect", *sys.argv[1:]]))

"""Command line of `aaren-rl compare`; see `--help`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["compare", *sys.argv[1:]]))

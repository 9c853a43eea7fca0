"""Command line of `aaren-rl finetune`; see `--help`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main(["finetune", *sys.argv[1:]]))

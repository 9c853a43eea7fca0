"""`python -m aaren_rl`: the same as the command `aaren-rl`."""

import sys

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main())

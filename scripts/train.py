"""The command `aaren-rl NAME` by the name of this file; the other commands are links to it."""

import sys
from pathlib import Path

from aaren_rl.cli import main

if __name__ == "__main__":
    sys.exit(main([Path(sys.argv[0]).stem, *sys.argv[1:]]))

"""Collect in a child process that is killed at random moments and resumed until it is through.

    python kill_collect.py FOLDER KIND KILLS

Prints how often it killed.
"""

from __future__ import annotations

import dataclasses
import sys
from pathlib import Path

import stable_baselines3  # noqa: F401
from collect_cases import MAKERS

from aaren_rl.collect import collect

sys.path.append(str(Path(__file__).parents[1]))  # this file is run as a script
from killing import until_through


def main() -> None:
    folder, kind, kills = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    config = dataclasses.replace(MAKERS[kind](folder), resume=True)
    print(until_through(lambda: collect(config), kills, 0.05, 1.0))


if __name__ == "__main__":
    main()

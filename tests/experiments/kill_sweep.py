"""Run a benchmark that is killed at random moments until it is through.

    python kill_sweep.py SPEC.yaml OUT KILLS

Prints how often it killed.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aaren_rl.experiments import BenchmarkConfig, benchmark

sys.path.append(str(Path(__file__).parents[1]))  # this file is run as a script
from killing import until_through


def main() -> None:
    config = BenchmarkConfig(Path(sys.argv[1]), out=Path(sys.argv[2]), workers=1)
    print(until_through(lambda: benchmark(config), int(sys.argv[3]), 0.05, 1.5))


if __name__ == "__main__":
    main()

"""Train in a child process that is killed at random moments and resumed until it is through.

    python kill_loop.py RUN_FOLDER CONFIG.json KILLS

Prints how often it killed.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path

from aaren_rl.training import TrainConfig, train

sys.path.append(str(Path(__file__).parents[1]))  # this file is run as a script
from killing import until_through


def main() -> None:
    folder, file, kills = Path(sys.argv[1]), Path(sys.argv[2]), int(sys.argv[3])
    config = TrainConfig.from_json(json.loads(file.read_text()), file)
    config = dataclasses.replace(config, out=folder, resume=True)
    print(until_through(lambda: train(config), kills, 0.1, 0.6))


if __name__ == "__main__":
    main()

"""Let a scripted expert write a Minari dataset of a task that needs memory; see `--help`."""

from __future__ import annotations

import sys

import tyro

from aaren_rl.data.sources.minari import METADATA
from aaren_rl.envs.memory.command import MemoryDataConfig, make_memory_data
from aaren_rl.errors import UserError
from aaren_rl.files import read_json


def main() -> int:
    """Write the dataset and say what is in it; gives the exit code."""
    try:
        folder = make_memory_data(tyro.cli(MemoryDataConfig))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    content = read_json(folder / "data" / METADATA)
    print(f"{folder}: {content['total_episodes']} episodes, {content['total_steps']} steps")
    return 0


if __name__ == "__main__":
    sys.exit(main())

"""Let a scripted expert write a Minari dataset of a task that needs memory; see `--help`."""

from __future__ import annotations

import sys

import tyro

from aaren_rl.data import load_trajectories
from aaren_rl.envs.memory_data import MemoryDataConfig, make_memory_data
from aaren_rl.errors import UserError


def main() -> int:
    """Write the dataset and say what is in it; gives the exit code."""
    try:
        folder = make_memory_data(tyro.cli(MemoryDataConfig))
    except UserError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    data = load_trajectories(folder)
    print(
        f"{folder}: {data.num_episodes} episodes, {data.num_steps} steps, "
        f"{data.lengths.min()} to {data.max_episode_length} an episode; "
        f"mean return {data.episode_returns.mean():.3f}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())

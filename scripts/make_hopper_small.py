"""Make the dataset that ships in this package, `aaren-rl/hopper-small-v0`, from the whole one.

    python scripts/make_hopper_small.py path/to/mujoco-zoo/hopper/medium-v0

It was run once; it is here so that everybody can see where the data come from.
"""

from __future__ import annotations

import sys
from pathlib import Path

from aaren_rl.data.excerpt import make_excerpt
from aaren_rl.data.sources.load import SHIPPED_ROOT, load_trajectories
from aaren_rl.robots import ROBOTS

LOWEST, HIGHEST = ROBOTS["hopper"].reference_scores
METADATA = {
    "author": {"aaren-rl"},
    "algorithm_name": "SB3 zoo policies",
    "description": (
        "The first whole episodes, in order and unselected, of mujoco-zoo/hopper/medium-v0: "
        "Hopper-v5 rolled out from public pre-trained Stable-Baselines3 agents, stochastic, some "
        "with extra action noise, observations in float32. Made by scripts/make_hopper_small.py. "
        "Reference scores are D4RL's; the data are not."
    ),
    "ref_min_score": LOWEST,
    "ref_max_score": HIGHEST,
    "num_episodes_average_score": 100,
}


def main() -> None:
    """Make the dataset and say what is in it."""
    folder = make_excerpt(
        Path(sys.argv[1]),
        SHIPPED_ROOT,
        "aaren-rl/hopper-small-v0",
        environment_id="Hopper-v5",
        max_bytes=3_000_000,
        metadata=METADATA,
    )
    data = load_trajectories(folder)
    scores = data.normalized_score(data.episode_returns)
    assert scores is not None
    print(f"{folder}: {data.num_episodes} episodes, {data.num_steps} steps")
    print(f"mean return {data.episode_returns.mean():.1f}, mean score {scores.mean():.1f}")


if __name__ == "__main__":
    main()

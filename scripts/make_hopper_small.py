"""Make the dataset that ships in this package, `aaren-rl/hopper-small-v0`, from the whole one.

    python scripts/make_hopper_small.py path/to/mujoco-zoo/hopper/medium-v0

It was run once; it is here so that everybody can see where the data come from.
"""

from __future__ import annotations

import sys
from itertools import islice
from pathlib import Path

import gymnasium

from aaren_rl.data import load_dataset
from aaren_rl.data.sources.minari import SHIPPED_ROOT, open_minari
from aaren_rl.data.to_minari import write_minari
from aaren_rl.robots import ROBOTS

EPISODES = 79  # as many as fit in 3 MB

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
    source = open_minari(Path(sys.argv[1]))
    assert source.observation_space is not None
    assert source.action_space is not None
    folder = write_minari(
        "aaren-rl/hopper-small-v0",
        islice(source.episodes(), EPISODES),
        observation_space=source.observation_space,
        action_space=source.action_space,
        env_spec=gymnasium.spec("Hopper-v5"),
        root=SHIPPED_ROOT,
        metadata=METADATA,
        compression="gzip",
    )
    data = load_dataset(folder)
    scores = data.normalized_score(data.episode_returns)
    assert scores is not None
    print(f"{folder}: {data.num_episodes} episodes, {data.num_steps} steps")
    print(f"mean return {data.episode_returns.mean():.1f}, mean score {scores.mean():.1f}")


if __name__ == "__main__":
    main()

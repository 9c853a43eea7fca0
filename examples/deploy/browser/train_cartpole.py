"""Train the policy that balances the pole in `index.html`, on its own data, and export it.

python examples/deploy/browser/train_cartpole.py
"""

from __future__ import annotations

import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import gymnasium as gym
import numpy as np

import aaren_rl as arl
from aaren_rl.export import ExportConfig, export

HERE = Path(__file__).parent
GAINS = np.array([0.1, 0.3, 3.0, 1.0])
"""Of a linear controller that stays upright for all 500 steps."""


def record(episodes: int, seed: int = 0) -> list[dict[str, np.ndarray]]:
    """Episodes of the controller, which errs one time in five."""
    env, rng, data = gym.make("CartPole-v1"), np.random.default_rng(seed), []
    for episode in range(episodes):
        observation, ended = env.reset(seed=seed + episode)[0], False
        rows = []
        while not ended:
            action = int(GAINS @ observation > 0) if rng.random() > 0.2 else int(rng.integers(2))
            following, reward, terminated, truncated, _ = env.step(action)
            rows.append((observation, action, reward, terminated, truncated))
            observation, ended = following, terminated or truncated
        names = ("observations", "actions", "rewards", "terminations", "truncations")
        columns = zip(*rows, strict=True)
        data.append({name: np.array(x) for name, x in zip(names, columns, strict=True)})
    return data


def main(
    out: Path = HERE / "policy.onnx", episodes: int = 40, updates: int = 400, checked: int = 1000
) -> None:
    """Record, train and export, comparing so many steps; the target is the best return, 500."""
    data = arl.TrajectoryDataset.from_episodes(record(episodes), env="CartPole-v1")
    print(f"{data.num_episodes} episodes, mean return {data.episode_returns.mean():.0f}")
    with TemporaryDirectory() as folder:
        run = Path(folder, "run")
        arl.train(data, env="none", updates=updates, width=32, layers=2, out=run)
        config = ExportConfig(run=run, out=out, environment="CartPole-v1", steps=checked)
        print(f"{out}: {export(config).checks['agreement']}")


if __name__ == "__main__":
    main(*map(Path, sys.argv[1:2]))

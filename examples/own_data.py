"""Train on arrays in memory and score the agent in the environment they come from.

Run it by `python examples/own_data.py`.
"""

from __future__ import annotations

import gymnasium as gym
import numpy as np

import aaren_rl as arl


def collect(steps: int) -> dict[str, np.ndarray]:
    """Flat arrays of a hand-written CartPole policy that errs one time in five."""
    env, rng = gym.make("CartPole-v1"), np.random.default_rng(0)
    rows = []
    observation, _ = env.reset(seed=0)
    for _ in range(steps):
        action = int(observation[2] + 0.5 * observation[3] > 0)
        if rng.random() < 0.2:
            action = int(rng.integers(2))
        following, reward, terminated, truncated, _ = env.step(action)
        rows.append((observation, action, reward, terminated, truncated))
        observation = env.reset()[0] if terminated or truncated else following
    columns = zip(*rows, strict=True)
    names = ("observations", "actions", "rewards", "terminals", "timeouts")
    return {name: np.array(values) for name, values in zip(names, columns, strict=True)}


def main(steps: int = 5_000, updates: int = 300) -> float:
    """Collect, train, evaluate; the mean return of ten episodes."""
    data = arl.TrajectoryDataset.from_arrays(**collect(steps), env="CartPole-v1")
    print(f"{data.num_episodes} episodes, mean return {data.episode_returns.mean():.1f}")
    run = arl.train(data, env="none", updates=updates, width=32, layers=1)
    [row] = arl.evaluate(run.agent, "CartPole-v1", episodes=10).rows
    print(f"the agent's mean return: {row.return_mean:.1f}")
    return row.return_mean


if __name__ == "__main__":
    main()

"""Train for an environment of one's own: `python examples/own_environment.py`."""

from __future__ import annotations

from typing import Any

import gymnasium as gym
import numpy as np

import aaren_rl as arl


class Target(gym.Env[np.ndarray, np.ndarray]):
    """A point on a line moves by up to 0.2 a step; the reward is the negative distance to 0."""

    observation_space = gym.spaces.Box(-np.inf, np.inf, (1,))
    action_space = gym.spaces.Box(-1.0, 1.0, (1,))

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[np.ndarray, dict[str, Any]]:
        """Begin somewhere in [-2, 2]."""
        super().reset(seed=seed)
        self.place, self.steps = np.float32(self.np_random.uniform(-2, 2, 1)), 0
        return self.place, {}

    def step(self, action: np.ndarray) -> tuple[np.ndarray, float, bool, bool, dict[str, Any]]:
        """Move; an episode is cut after 20 steps."""
        self.place = np.float32(self.place + 0.2 * action)
        self.steps += 1
        return self.place, -abs(float(self.place[0])), False, self.steps == 20, {}


def episode(env: gym.Env[np.ndarray, np.ndarray], seed: int) -> dict[str, Any]:
    """One episode of a policy that goes the right way three times in four."""
    rng, truncated = np.random.default_rng(seed), False
    observations, actions, rewards = [env.reset(seed=seed)[0]], [], []
    while not truncated:
        right = -np.sign(observations[-1]) if rng.random() < 0.75 else rng.uniform(-1, 1, 1)
        actions.append(np.float32(right))
        observation, reward, _, truncated, _ = env.step(actions[-1])
        observations.append(observation)
        rewards.append(reward)
    return dict(observations=observations, actions=actions, rewards=rewards, truncated=True)


def main(episodes: int = 200, updates: int = 300) -> float:
    """Collect, train, evaluate; the mean return of ten episodes."""
    data = arl.TrajectoryDataset.from_episodes([episode(Target(), s) for s in range(episodes)])
    run = arl.train(data, env=Target, updates=updates, width=32, layers=1)
    [row] = arl.evaluate(run.agent, Target, episodes=10).rows
    print(f"data {data.episode_returns.mean():.1f}, agent {row.return_mean:.1f}")
    return row.return_mean


if __name__ == "__main__":
    main()

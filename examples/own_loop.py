"""A training loop by hand, and acting by hand: what `train` and `evaluate` do inside.

Run it by `python examples/own_loop.py`.
"""

from __future__ import annotations

import gymnasium as gym
import torch

import aaren_rl as arl
from aaren_rl.agents import AgentConfig, AgentSpec, DecisionAaren
from aaren_rl.data import WindowSampler


def main(updates: int = 300, width: int = 64, steps: int = 1_000) -> float:
    """Train on the shipped Hopper data, then act; the sum of rewards of one episode."""
    torch.manual_seed(0)
    data = arl.load_dataset("aaren-rl/hopper-small-v0")
    shift, scale = data.returns_to_go_statistics()
    spec = AgentSpec(
        observation_space=data.observation_space,
        action_space=data.action_space,
        returns_shift=shift,
        returns_scale=scale,
        target_returns=(3600.0,),
    )
    config = AgentConfig(width=width, context_length=20)
    agent = DecisionAaren(config, spec, *data.observation_statistics())
    optimizer = torch.optim.AdamW(agent.parameters(), lr=2e-3, weight_decay=1e-4)
    sampler = WindowSampler(data, batch_size=64, context_length=20, seed=0)
    agent.train()
    for update in range(1, updates + 1):
        loss = agent.loss(sampler.sample())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(agent.parameters(), 0.25)
        optimizer.step()
        if update % 100 == 0:
            print(f"update {update}: loss {loss.item():.4f}")

    env = gym.make("Hopper-v5")
    policy = agent.policy(num_envs=1)
    observation, _ = env.reset(seed=0)
    actions = policy.act(observation[None])
    total, done = 0.0, False
    for _ in range(steps):
        observation, reward, terminated, truncated, _ = env.step(actions[0])
        total, done = total + float(reward), terminated or truncated
        if done:
            break
        actions = policy.act(observation[None], rewards=[reward])
    print(f"return of one episode: {total:.1f}")
    return total


if __name__ == "__main__":
    main()

"""Agents that remember: trained with the preset `memory`, and asked by acting step by step."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from aaren_rl.agents import Agent, Mode
from aaren_rl.evaluation import rollout
from aaren_rl.training import TrainConfig, from_preset, train

TEST_SEED = 1_000_000  # the training episodes count up from 0


def train_to_remember(name: str, dataset: Path, out: Path, **settings: Any) -> dict[str, Any]:
    """Train one kind of agent on all of a dataset; `settings` win over the preset's.

    Returns:
        The run's summary. The agent is in `out / "last"`.
    """
    return train(
        from_preset(
            TrainConfig,
            "memory",
            dataset=str(dataset),
            agent=name,
            out=out,
            environment="none",
            held_out=0.0,
            device="cpu",
            **settings,
        )
    )


def share_right(
    agent: Agent, environment: str, mode: Mode, episodes: int, seed: int = TEST_SEED
) -> float:
    """Mean return, which these tasks make the share right; episode i is seeded `seed + i`."""
    played = rollout(
        agent,
        environment,
        episodes=episodes,
        num_envs=episodes,
        mode=mode,
        target_return=1.0,
        seed=seed,
    )
    return float(played.returns.mean())

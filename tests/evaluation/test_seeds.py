"""Evaluation episodes: shared by agents, never by training seeds."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gymnasium as gym
import pytest

from aaren_rl.collect.recipe import REFERENCE_SEEDS, SEEDS
from aaren_rl.errors import UserError
from aaren_rl.evaluation import EvaluateConfig, evaluate, evaluating
from aaren_rl.evaluation.seeds import EPISODES_PER_BLOCK, first_episode_seed
from aaren_rl.training import evaluator, train


def test_blocks_of_a_thousand_training_seeds_share_no_episode() -> None:
    """Sorted by their first seed, each block of the largest size ends before the next begins."""
    first = sorted(
        first_episode_seed(seed, when)
        for seed in range(1000)
        for when in ("during training", "after training")
    )
    assert len(first) == 2000
    assert all(b - a >= EPISODES_PER_BLOCK for a, b in itertools.pairwise(first))
    collected = max(*SEEDS.values(), *REFERENCE_SEEDS.values())
    assert first[0] > collected + 50_000_000  # far from the seeds that data are made with
    assert first[-1] + EPISODES_PER_BLOCK < 2**31


def test_the_largest_training_seed_still_seeds_an_environment() -> None:
    env = gym.make("CartPole-v1")
    env.reset(seed=first_episode_seed(2**32 - 1, "after training") + EPISODES_PER_BLOCK)
    env.close()


def test_runs_act_in_the_episodes_of_their_seed(
    tiny: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The seeds that training's evaluations really use: by seed, whoever acts, however many."""
    asked: dict[tuple[str, int, int], set[int]] = {}
    real = evaluator.rollout

    def watched(*args: Any, **settings: Any) -> Any:
        played = real(*args, **settings)
        first = settings["seed"]
        seen.update(range(first, first + len(played.returns)))
        return played

    monkeypatch.setattr(evaluator, "rollout", watched)
    for agent, seed, episodes in (
        ("decision-aaren", 0, 3),
        ("decision-aaren", 1, 3),
        ("behavior-cloning", 0, 3),
        ("behavior-cloning", 1, 5),
    ):
        seen: set[int] = set()
        out = tmp_path / f"{agent}-{seed}"
        train(tiny(out, agent=agent, seed=seed, updates=2, evaluate_every=2, episodes=episodes))
        asked[agent, seed, episodes] = seen
    assert asked["decision-aaren", 0, 3] == asked["behavior-cloning", 0, 3]
    assert asked["decision-aaren", 1, 3] < asked["behavior-cloning", 1, 5]
    assert not asked["decision-aaren", 0, 3] & asked["behavior-cloning", 1, 5]

    monkeypatch.setattr(evaluating, "rollout", watched)
    after = {}
    for name in ("decision-aaren-1", "behavior-cloning-1"):
        seen = set()
        evaluate(EvaluateConfig(run=tmp_path / name, episodes=3))
        after[name] = seen
    assert after["decision-aaren-1"] == after["behavior-cloning-1"]
    assert after["decision-aaren-1"] == {20_000, 20_001, 20_002}
    assert not after["decision-aaren-1"] & asked["behavior-cloning", 1, 5]


def test_more_episodes_than_a_block_are_refused(tiny: Callable[..., Any], tmp_path: Path) -> None:
    tiny(tmp_path, episodes=EPISODES_PER_BLOCK).check()
    with pytest.raises(UserError, match="--episodes must be at most 100000, got 100001"):
        tiny(tmp_path, episodes=EPISODES_PER_BLOCK + 1).check()

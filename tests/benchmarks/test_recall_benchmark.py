"""The recall benchmark's whole path once, tiny."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from aaren_rl.envs.make import make_vector_env
from aaren_rl.envs.memory.recall import VectorRecall
from benchmarks import recall


def test_the_benchmark_from_training_to_picture(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(recall, "LENGTHS", (8, 12))
    file = tmp_path / "out" / "recall.json"
    config = recall.RecallConfig(pairs=(1, 2), data=30, episodes=4, updates=3, json=file)
    recall.main(config)
    found = json.loads(file.read_text())
    asked = [(row["agent"], row["pairs"]) for row in found["rows"]]
    assert asked == [(name, pairs) for pairs in (1, 2) for name in recall.AGENTS]
    assert all(0 <= row[length] <= 1 for row in found["rows"] for length in ("8", "12"))
    assert file.with_suffix(".png").stat().st_size > 10_000


def test_the_tasks_have_the_pairs_and_the_lengths_that_they_say() -> None:
    env = make_vector_env(recall.task(3, 40), 2)
    assert env.single_observation_space.shape == (3 + 2 + 2,)
    env.close()
    env = make_vector_env(recall.task(2, (8, 120)), 64)
    env.reset(seed=0)
    plain = env.unwrapped
    assert isinstance(plain, VectorRecall)
    lengths = plain.lengths
    assert 8 <= lengths.min() < 20  # log-uniform: many short ones
    assert lengths.max() > 60
    env.close()

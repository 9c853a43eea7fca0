"""Whole-episode batches."""

import json
from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from aaren_rl.data import EpisodeSampler, Trajectory, TrajectoryDataset
from aaren_rl.data.sampling import ROUND_TO
from aaren_rl.errors import UserError


def numbered(lengths):
    """Episodes whose observation is the number of the step in the whole dataset."""
    first = np.concatenate([[0], np.cumsum(lengths)])
    episodes = [
        Trajectory(
            observations=np.arange(a, b, dtype=np.float32)[:, None],
            actions=np.zeros((b - a, 1), dtype=np.float32),
            rewards=np.ones(b - a),
            terminated=True,
            truncated=False,
        )
        for a, b in pairwise(first)
    ]
    return TrajectoryDataset.from_episodes(
        episodes,
        name="numbered",
        observation_space=spaces.Box(-np.inf, np.inf, (1,)),
        action_space=spaces.Box(-1, 1, (1,)),
    )


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=30),
    budget=st.integers(1, 100),
    seed=st.integers(0, 5),
)
def test_an_epoch_is_every_step_once_within_the_budget(lengths, budget, seed):
    data = numbered(lengths)
    sampler = EpisodeSampler(data, batch_steps=budget, seed=seed)
    seen: list[float] = []
    while len(seen) < data.num_steps:
        batch = sampler.sample()
        ends = batch.cu_seqlens.tolist()
        steps = int(batch.mask.sum())
        assert batch.mask.shape == (1, ends[-1])
        assert batch.mask[0, :steps].all(), "padding is behind"
        assert ends[-1] % ROUND_TO == 0
        assert ends[-1] - steps < ROUND_TO
        if ends[-1] > steps:
            padding = batch.cu_seqlens[-2:].tolist()
            assert padding == [steps, ends.pop()], "a sequence of its own"
            assert not batch.observations[0, steps:].any()
        assert len(ends) == 2 or steps <= budget
        for start, end in pairwise(ends):
            assert batch.timesteps[0, start:end].tolist() == list(range(end - start))
            assert float(batch.returns_to_go[0, start, 0]) == end - start
        seen += batch.observations[batch.mask][:, 0].tolist()
    assert sorted(seen) == list(range(data.num_steps))


def test_batches_are_well_filled():
    """Episodes of up to the budget: next-fit alone fills three quarters of it."""
    lengths = np.random.default_rng(0).integers(150, 1000, 400)
    data = numbered(lengths)
    sampler, batches = EpisodeSampler(data, batch_steps=1280, seed=0), []
    while sum(batches) < data.num_steps:
        batches.append(int(sampler.sample().mask.sum()))
    assert np.mean(batches) > 0.9 * 1280


def test_processes_share_an_epoch():
    data = numbered(range(1, 40))
    ranks = [
        EpisodeSampler(data, batch_steps=60, seed=3, rank=rank, world_size=2) for rank in (0, 1)
    ]
    alone = EpisodeSampler(data, batch_steps=60, seed=3)
    for _ in range(5):
        for sampler in ranks:
            assert sampler.sample().observations.equal(alone.sample().observations)


def test_goes_on_where_it_stood():
    data = numbered(range(1, 40))
    first = EpisodeSampler(data, batch_steps=60, seed=1)
    for _ in range(37):  # beyond the first epoch
        first.sample()
    second = EpisodeSampler(data, batch_steps=60, seed=2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(40):
        assert first.sample().observations.equal(second.sample().observations)


def test_refuses_a_budget_of_nothing():
    with pytest.raises(UserError, match="batch steps 0"):
        EpisodeSampler(numbered([3]), batch_steps=0, seed=0)

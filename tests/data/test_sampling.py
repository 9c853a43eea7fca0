from __future__ import annotations

import json
import time

import numpy as np
import pytest
import torch
from gymnasium import spaces
from hypothesis import given, settings
from hypothesis import strategies as st

from aaren_rl.data import Batch, Trajectory, TrajectoryDataset, WindowSampler
from aaren_rl.errors import UserError


def numbered(lengths: list[int]) -> TrajectoryDataset:
    """Every observation is (episode, step), both counted from 1; rewards differ at every step."""
    episodes = []
    for index, steps in enumerate(lengths):
        count = np.arange(1.0, steps + 2)
        episodes.append(
            Trajectory(
                observations=np.stack([np.full(steps + 1, index + 1), count], axis=1),
                actions=count[:-1, None],
                rewards=count[:-1] * (index + 1),
                terminated=True,
                truncated=False,
            )
        )
    return TrajectoryDataset.from_episodes(
        episodes,
        name="numbered",
        observation_space=spaces.Box(0, np.inf, (2,)),
        action_space=spaces.Box(0, np.inf, (1,)),
    )


def equal(a: Batch, b: Batch) -> bool:
    return a.starts is b.starts is None and all(map(torch.equal, a[:5], b[:5]))


@settings(deadline=None)
@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=5),
    context=st.integers(1, 12),
    seed=st.integers(0, 9),
)
def test_windows_are_pieces_of_one_episode(lengths: list[int], context: int, seed: int) -> None:
    data = numbered(lengths)
    batch = WindowSampler(data, batch_size=16, context_length=context, seed=seed).sample()
    for row in range(16):
        first = batch.observations[row, 0]
        index, start = int(first[0]) - 1, int(first[1]) - 1
        count = int(batch.mask[row].sum())
        longest = min(context, lengths[index] - start)
        # Only a window that reaches beyond the episode's start is shorter for it.
        assert 1 <= count <= longest
        assert start == 0 or count == longest
        assert batch.mask[row].tolist() == [True] * count + [False] * (context - count)
        steps = slice(start, start + count)
        part = data.episode(index)
        offset = int(data.offsets[index])
        expected_returns = [part.rewards[t:].sum() for t in range(start, start + count)]
        np.testing.assert_array_equal(batch.observations[row, :count], part.observations[steps])
        np.testing.assert_array_equal(batch.actions[row, :count], part.actions[steps])
        np.testing.assert_allclose(batch.returns_to_go[row, :count, 0], expected_returns)
        np.testing.assert_array_equal(
            batch.timesteps[row, :count], data.timesteps[offset + start : offset + start + count]
        )
        for padded in (batch.observations, batch.actions, batch.returns_to_go, batch.timesteps):
            assert not padded[row, count:].any()


def test_shapes_and_dtypes(shipped: TrajectoryDataset) -> None:
    batch = WindowSampler(shipped, batch_size=8, context_length=20, seed=0).sample().to("cpu")
    assert batch.observations.shape == (8, 20, 11)
    assert batch.actions.shape == (8, 20, 3)
    assert batch.returns_to_go.shape == (8, 20, 1)
    assert batch.timesteps.shape == batch.mask.shape == (8, 20)
    for values in (batch.observations, batch.actions, batch.returns_to_go):
        assert values.dtype == torch.float32
    assert batch.timesteps.dtype == torch.int64
    assert batch.mask.dtype == torch.bool


def test_discrete_actions_have_no_last_axis() -> None:
    episode = Trajectory(np.zeros((4, 1)), np.array([2, 0, 1]), np.ones(3), True, False)
    data = TrajectoryDataset.from_episodes(
        [episode],
        name="d",
        observation_space=spaces.Box(-1, 1, (1,)),
        action_space=spaces.Discrete(3),
    )
    batch = WindowSampler(data, batch_size=4, context_length=5, seed=0).sample()
    assert batch.actions.shape == (4, 5)
    assert batch.actions.dtype == torch.int64


def test_every_step_is_equally_often_in_a_window() -> None:
    """The first steps of an episode too: each is in a window with probability context / places."""
    lengths, context, windows = [2, 30, 8, 1, 59], 4, 100_000
    sampler = WindowSampler(numbered(lengths), batch_size=1000, context_length=context, seed=1)
    counts = np.zeros((len(lengths) + 1, max(lengths) + 1))
    for _ in range(windows // 1000):
        batch = sampler.sample()
        episode, step = batch.observations[batch.mask].int().numpy().T
        np.add.at(counts, (episode, step), 1)
    chance = context / (sum(lengths) + len(lengths) * (context - 1))
    deviation = np.sqrt(windows * chance * (1 - chance))
    for index, steps in enumerate(lengths):
        away = (counts[index + 1, 1 : steps + 1] - windows * chance) / deviation
        assert abs(away).max() < 5
        counts[index + 1, 1 : steps + 1] = 0
    assert not counts.any()  # no other steps


def test_same_seed_same_batches(shipped: TrajectoryDataset) -> None:
    def batches(seed: int) -> list[Batch]:
        sampler = WindowSampler(shipped, batch_size=8, context_length=20, seed=seed)
        return [sampler.sample() for _ in range(3)]

    assert all(map(equal, batches(0), batches(0)))
    assert not equal(batches(0)[0], batches(1)[0])
    assert not equal(batches(0)[0], batches(0)[1])


def test_a_restored_sampler_goes_on_alike(shipped: TrajectoryDataset) -> None:
    sampler = WindowSampler(shipped, batch_size=8, context_length=20, seed=0)
    for _ in range(5):
        sampler.sample()
    saved = json.loads(json.dumps(sampler.state_dict()))
    expected = [sampler.sample() for _ in range(3)]
    other = WindowSampler(shipped, batch_size=8, context_length=20, seed=99)
    other.load_state_dict(saved)
    assert all(map(equal, expected, [other.sample() for _ in range(3)]))


def test_slices_of_all_processes_make_the_whole_batch(shipped: TrajectoryDataset) -> None:
    def sampler(rank: int, world_size: int) -> WindowSampler:
        return WindowSampler(
            shipped, batch_size=12, context_length=7, seed=5, rank=rank, world_size=world_size
        )

    whole, parts = sampler(0, 1), [sampler(rank, 3) for rank in range(3)]
    for _ in range(2):
        expected, slices = whole.sample(), [part.sample() for part in parts]
        for field, values in list(expected._asdict().items())[:5]:  # the rest is None
            assert torch.equal(values, torch.cat([getattr(part, field) for part in slices]))


@pytest.mark.parametrize(
    ("batch_size", "context_length", "world_size"), [(0, 5, 1), (7, 5, 2), (4, 0, 1), (-4, 5, 1)]
)
def test_absurd_sizes_are_refused(batch_size: int, context_length: int, world_size: int) -> None:
    with pytest.raises(UserError, match=r"batch size|context length"):
        WindowSampler(
            numbered([3]),
            batch_size=batch_size,
            context_length=context_length,
            seed=0,
            world_size=world_size,
        )


def test_sampling_costs_little_beside_a_training_step(shipped: TrajectoryDataset) -> None:
    sampler = WindowSampler(shipped, batch_size=64, context_length=20, seed=0)
    seconds = []
    for _ in range(5):
        start = time.perf_counter()
        for _ in range(50):
            sampler.sample()
        seconds.append((time.perf_counter() - start) / 50)
    assert min(seconds) < 1e-3  # about 4e-5 on an idle core; a loop over samples takes 3e-3


def test_windows_inside_begin_uniformly_at_all_steps() -> None:
    lengths = [2, 30, 8, 1, 59]
    data = numbered(lengths)
    sampler = WindowSampler(data, batch_size=1000, context_length=3, seed=1, inside=True)
    draws = torch.cat([sampler.sample().observations[:, 0] for _ in range(100)]).numpy()
    cells = [(i + 1, t + 1) for i, steps in enumerate(lengths) for t in range(steps)]
    counts = np.array([np.sum((draws == cell).all(axis=1)) for cell in cells])
    assert counts.sum() == len(draws)
    expected = len(draws) / len(cells)
    chi_square = ((counts - expected) ** 2 / expected).sum()
    # mean 99, standard deviation 14: five deviations either way
    assert abs(chi_square - 99) < 70

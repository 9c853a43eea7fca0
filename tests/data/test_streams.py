"""Segments in order."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from aaren_rl.data import StreamSampler
from aaren_rl.errors import UserError
from tests.data.test_episodes import numbered


@settings(max_examples=50, deadline=None)
@given(
    lengths=st.lists(st.integers(1, 40), min_size=1, max_size=12),
    rows=st.integers(1, 4),
    time=st.integers(1, 15),
)
def test_rows_read_whole_episodes_in_order(lengths, rows, time):
    data = numbered(lengths)
    sampler = StreamSampler(data, batch_size=rows, context_length=time, seed=0)
    read: list[list[float]] = [[] for _ in range(rows)]
    starts = {float(offset) for offset in data.offsets[:-1]}
    for number in range(60):
        batch = sampler.sample()
        assert batch.mask[:, 0].all()
        for row in range(rows):
            steps = batch.observations[row][batch.mask[row]][:, 0].tolist()
            assert bool(batch.starts[row]) == (steps[0] in starts)
            if number == 0:
                assert batch.starts[row]
            if not batch.starts[row]:
                assert steps[0] == read[row][-1] + 1
            elif read[row]:
                assert read[row][-1] + 1 in {float(offset) for offset in data.offsets[1:]}
            read[row] += steps
            assert steps == list(range(int(steps[0]), int(steps[0]) + len(steps)))


def test_every_episode_once_before_any_twice():
    data = numbered([4] * 10)
    sampler = StreamSampler(data, batch_size=2, context_length=4, seed=0)
    firsts = [step for _ in range(5) for step in sampler.sample().observations[:, 0, 0].tolist()]
    assert sorted(firsts) == [4.0 * i for i in range(10)]


def test_processes_read_their_own_rows():
    data = numbered(range(3, 30))
    both = StreamSampler(data, batch_size=4, context_length=5, seed=3)
    ranks = [
        StreamSampler(data, batch_size=4, context_length=5, seed=3, rank=rank, world_size=2)
        for rank in (0, 1)
    ]
    for _ in range(20):
        whole = both.sample()
        for rank, sampler in enumerate(ranks):
            part = sampler.sample()
            rows = slice(2 * rank, 2 * rank + 2)
            assert part.observations.equal(whole.observations[rows])
            assert part.starts.equal(whole.starts[rows])


def test_goes_on_where_it_stood():
    data = numbered(range(3, 30))
    first = StreamSampler(data, batch_size=3, context_length=4, seed=1)
    for _ in range(23):
        first.sample()
    second = StreamSampler(data, batch_size=3, context_length=4, seed=2)
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    for _ in range(100):
        a, b = first.sample(), second.sample()
        assert a.observations.equal(b.observations)
        assert a.starts.equal(b.starts)


@pytest.mark.parametrize(("rows", "time"), [(0, 5), (3, 0)])
def test_refuses_nothing(rows, time):
    with pytest.raises(UserError):
        StreamSampler(numbered([3]), batch_size=rows, context_length=time, seed=0)

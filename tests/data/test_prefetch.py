"""A sampler that is one batch ahead gives the same batches and says the same of itself."""

import json

import pytest
import torch

from aaren_rl.data import EpisodeSampler, Sampler, StreamSampler, TrajectoryDataset, WindowSampler
from aaren_rl.data.prefetch import PrefetchSampler, prefetched
from aaren_rl.data.sampling import Batch

KINDS = ("windows", "episodes", "streams")


def make(kind: str, data: TrajectoryDataset) -> Sampler:
    """A sampler of small batches."""
    if kind == "windows":
        return WindowSampler(data, batch_size=4, context_length=5, seed=3)
    if kind == "episodes":
        return EpisodeSampler(data, batch_steps=600, seed=3)
    return StreamSampler(data, batch_size=3, context_length=50, seed=3)


def assert_same(first: Batch, second: Batch) -> None:
    """All parts are equal."""
    for one, other in zip(first, second, strict=True):
        assert (one is None) == (other is None)
        if one is not None and other is not None:
            assert torch.equal(one, other)


@pytest.mark.parametrize("kind", KINDS)
def test_same_batches_and_same_state(kind: str, shipped: TrajectoryDataset) -> None:
    """Batch by batch, and what is drawn ahead is not counted."""
    plain, ahead = make(kind, shipped), PrefetchSampler(make(kind, shipped), pin=False)
    assert ahead.state_dict() == plain.state_dict()
    for _ in range(40):
        assert_same(ahead.sample(), plain.sample())
        assert json.dumps(ahead.state_dict()) == json.dumps(plain.state_dict())


@pytest.mark.parametrize("kind", KINDS)
def test_going_on(kind: str, shipped: TrajectoryDataset) -> None:
    """A state taken up in a sampler that has drawn ahead, and in a new one."""
    plain, ahead = make(kind, shipped), PrefetchSampler(make(kind, shipped), pin=False)
    for _ in range(7):
        ahead.sample()
    stood = json.loads(json.dumps(ahead.state_dict()))
    plain.load_state_dict(stood)
    expected = [plain.sample() for _ in range(5)]
    for _ in range(3):
        ahead.sample()
    for sampler in (ahead, PrefetchSampler(make(kind, shipped), pin=False)):
        sampler.load_state_dict(stood)
        for batch in expected:
            assert_same(sampler.sample(), batch)


def test_only_for_accelerators(shipped: TrajectoryDataset) -> None:
    """On a CPU the sampler itself is used."""
    sampler = make("windows", shipped)
    assert prefetched(sampler, torch.device("cpu")) is sampler
    assert isinstance(prefetched(sampler, torch.device("meta")), PrefetchSampler)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
def test_pinned(shipped: TrajectoryDataset) -> None:
    """Batches for a GPU lie in page-locked memory."""
    batch = prefetched(make("windows", shipped), torch.device("cuda")).sample()
    assert batch.observations.is_pinned()
    assert torch.equal(batch.to("cuda").observations.cpu(), batch.observations)

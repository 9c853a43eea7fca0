from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from gymnasium import spaces
from hypothesis import given
from hypothesis import strategies as st

from aaren_rl.data import Trajectory, TrajectoryDataset
from aaren_rl.data.statistics import returns_to_go
from aaren_rl.errors import UserError

BOX = spaces.Box(-np.inf, np.inf, (2,), np.float64)
ACTIONS = spaces.Box(-1, 1, (1,))


def episode(steps: int, *, spare: int = 1, **changes: object) -> Trajectory:
    """An episode whose observations count its steps, with `spare` rows after the last action."""
    fields: dict[str, object] = {
        "observations": np.arange(2.0 * (steps + spare)).reshape(-1, 2),
        "actions": np.full((steps, 1), 0.5),
        "rewards": np.ones(steps),
        "terminated": True,
        "truncated": False,
    }
    return Trajectory(**{**fields, **changes})  # type: ignore[arg-type]


def build(*episodes: Trajectory, actions: spaces.Space = ACTIONS) -> TrajectoryDataset:
    return TrajectoryDataset.from_episodes(
        episodes, name="d", observation_space=BOX, action_space=actions, source="file"
    )


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), seed=st.integers(0, 99))
def test_returns_to_go_is_the_sum_to_the_episodes_end(lengths: list[int], seed: int) -> None:
    offsets = np.concatenate([[0], np.cumsum(lengths)])
    rewards = np.random.default_rng(seed).normal(size=offsets[-1])
    result = returns_to_go(rewards, offsets)
    for start, stop in pairwise(offsets):
        for t in range(start, stop):
            assert result[t] == pytest.approx(rewards[t:stop].sum())


@given(lengths=st.lists(st.integers(1, 9), min_size=1, max_size=6), spare=st.integers(0, 1))
def test_episodes_stay_aligned(lengths: list[int], spare: int) -> None:
    data = build(*(episode(steps, spare=spare) for steps in lengths))
    assert data.num_episodes == len(lengths)
    assert data.num_steps == sum(lengths)
    assert data.lengths.tolist() == lengths
    assert data.max_episode_length == max(lengths)
    for index, steps in enumerate(lengths):
        part = data.episode(index)
        np.testing.assert_array_equal(part.observations, episode(steps, spare=0).observations)
    np.testing.assert_array_equal(data.timesteps, np.concatenate([np.arange(n) for n in lengths]))
    np.testing.assert_array_equal(data.observations[:, 0], 2.0 * data.timesteps)


def test_dtypes_and_shapes() -> None:
    data = build(episode(3), episode(2, terminated=False, truncated=True))
    assert data.observations.dtype == np.float32
    assert data.observations.shape == (5, 2)
    assert data.actions.dtype == np.float32
    assert data.actions.shape == (5, 1)
    assert data.rewards.dtype == np.float64
    assert data.returns_to_go.dtype == np.float32
    assert data.returns_to_go.tolist() == [3, 2, 1, 2, 1]
    assert data.timesteps.dtype == data.offsets.dtype == np.int64
    assert data.terminated.tolist() == [True, False]
    assert data.truncated.tolist() == [False, True]
    assert data.episode_returns.tolist() == [3, 2]


def test_discrete_actions_are_integers_a_step() -> None:
    data = build(episode(3, actions=np.array([[0], [2], [1]])), actions=spaces.Discrete(3))
    assert data.actions.dtype == np.int64
    assert data.actions.tolist() == [0, 2, 1]


def test_statistics_match_numpy(shipped: TrajectoryDataset) -> None:
    mean, std = shipped.observation_statistics()
    exact = shipped.observations.astype(np.float64)
    np.testing.assert_allclose(mean, exact.mean(0), rtol=1e-6)
    np.testing.assert_allclose(std, exact.std(0), rtol=1e-6)


STEPS = 40_000  # several blocks
NOISE = np.random.default_rng(0).normal(size=STEPS)


@pytest.mark.parametrize(
    "column",
    [
        np.zeros(STEPS),
        np.full(STEPS, 7.0),
        np.full(STEPS, 0.1),
        np.full(STEPS, -123456.789),
        np.full(STEPS, 3e30),
        np.where(NOISE > 0, 1e6, np.nextafter(np.float32(1e6), np.float32(2e6))),
        (1e6 * (1 + 1e-7 * NOISE)).astype(np.float32),
        1e-12 * NOISE,
    ],
)
def test_a_constant_column_has_unit_scale(column: np.ndarray) -> None:
    """Also where it varies by the rounding of float32, or by a simulator's."""
    data = build(episode(STEPS, observations=np.stack([column, NOISE], 1)))
    mean, std = data.observation_statistics()
    assert std[0] == 1
    np.testing.assert_allclose(mean[0], column.mean(), rtol=2e-7, atol=1e-12)
    assert std[1] == pytest.approx(NOISE.std(), rel=1e-6)


@pytest.mark.parametrize(
    ("mean", "std"), [(0, 1e-6), (1e6, 10), (1e4, 0.1), (-5, 1e-4), (0, 1e9), (0, 1e-9)]
)
def test_a_column_that_varies_keeps_its_scale(mean: float, std: float) -> None:
    """However large its mean or small its unit, and with no more error than float32 has."""
    column = (mean + std * NOISE).astype(np.float32)
    data = build(episode(STEPS, observations=np.stack([column, NOISE], 1)))
    exact = column.astype(np.float64)
    found = data.observation_statistics()
    np.testing.assert_allclose(found[0][0], exact.mean(), rtol=2e-7, atol=1e-6 * std)
    np.testing.assert_allclose(found[1][0], exact.std(), rtol=1e-6)


def test_top_percent_keeps_the_best_episodes_in_their_order() -> None:
    data = build(*(episode(1, rewards=np.array([r])) for r in [3.0, 9.0, 1.0, 7.0, 5.0]))
    assert data.top_percent(40).episode_returns.tolist() == [9, 7]
    assert data.top_percent(60).episode_returns.tolist() == [9, 7, 5]
    assert data.top_percent(1).episode_returns.tolist() == [9]
    assert data.top_percent(100).episode_returns.tolist() == [3, 9, 1, 7, 5]


@pytest.mark.parametrize("percent", [0, -1, 100.1, float("nan")])
def test_absurd_percentages_are_refused(percent: float) -> None:
    with pytest.raises(UserError, match="percent"):
        build(episode(1)).top_percent(percent)


def test_subset_takes_episodes_whole(shipped: TrajectoryDataset) -> None:
    part = shipped.subset([7, 3])
    for new, old in enumerate([7, 3]):
        ours, theirs = part.episode(new), shipped.episode(old)
        np.testing.assert_array_equal(ours.observations, theirs.observations)
        np.testing.assert_array_equal(ours.rewards, theirs.rewards)
        assert (ours.terminated, ours.truncated) == (theirs.terminated, theirs.truncated)
    np.testing.assert_array_equal(part.episode_returns, shipped.episode_returns[[7, 3]])
    with pytest.raises(UserError, match="no episodes"):
        shipped.subset([])


def test_normalized_score(shipped: TrajectoryDataset) -> None:
    score = shipped.normalized_score([-20.272305, 3234.3, (3234.3 - 20.272305) / 2])
    np.testing.assert_allclose(score, [0, 100, 50])
    assert build(episode(1)).normalized_score([1.0]) is None


WRONG = {
    "no episodes": ([], ["file", "no episodes"]),
    "zero-length": ([episode(2), episode(0)], ["file", "episode 1", "no steps"]),
    "too few observations": (
        [episode(3, observations=np.zeros((2, 2)))],
        ["episode 0", "2 observations", "3 or 4 expected"],
    ),
    "too many observations": ([episode(3, spare=2)], ["episode 0", "5 observations"]),
    "actions": ([episode(3, actions=np.zeros((2, 1)))], ["episode 0", "2 actions", "3 expected"]),
    "observation size": ([episode(2, observations=np.zeros((3, 5)))], ["observations", "[2, 5]"]),
    "action size": ([episode(2, actions=np.zeros((2, 4)))], ["actions", "[2, 4]", "[1]"]),
    "reward shape": ([episode(2, rewards=np.zeros((2, 2)))], ["rewards", "[2, 2]"]),
    "NaN observation": (
        [episode(1), episode(1, observations=np.array([[0, 1], [0, np.nan]]))],
        ["episode 1", "observations", "NaN", "step 1"],
    ),
    "infinite action": ([episode(1, actions=np.array([[-np.inf]]))], ["actions", "infinity"]),
    "NaN reward": ([episode(2, rewards=np.array([0, np.nan]))], ["rewards", "step 1"]),
    "beyond float32": ([episode(1, observations=np.full((2, 2), 1e300))], ["observations"]),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_episodes_are_refused_by_name(case: str) -> None:
    episodes, fragments = WRONG[case]
    with pytest.raises(UserError) as caught:
        build(*episodes)
    message = str(caught.value)
    assert "\n" not in message
    assert message.startswith("file")
    for fragment in fragments:
        assert fragment in message


@pytest.mark.parametrize("values", [[0, 3], [-1, 0], [0.5, 1], [np.nan, 1]])
def test_discrete_actions_outside_their_space_are_refused(values: list[float]) -> None:
    with pytest.raises(UserError, match="episode 0: actions: integers from 0 to 2"):
        build(episode(2, actions=np.array(values)), actions=spaces.Discrete(3))

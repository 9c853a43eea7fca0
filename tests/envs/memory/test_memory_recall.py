from __future__ import annotations

import gymnasium
import numpy as np
import pytest

from aaren_rl.envs import make_vector_env
from aaren_rl.envs.memory.recall import RecallExpert
from aaren_rl.errors import UserError

NAME = "aaren/Recall-v0"
PAIRS, VALUES = 3, 5


def watch(name: str, seed: int, **options: object) -> np.ndarray:
    """All observations of an episode, the last one, after the end, included."""
    env = gymnasium.make(name, **options)
    rows, terminated = [env.reset(seed=seed)[0]], False
    while not terminated:
        observation, _, terminated, _, _ = env.step(0)
        rows.append(observation)
    return np.stack(rows)


@pytest.mark.parametrize("noise", [0.0, 0.5])
def test_what_is_seen_and_when(noise: float) -> None:
    orders, moments = set(), []
    for seed in range(30):
        rows = watch(NAME, seed, length=20, pairs=PAIRS, values=VALUES, noise=noise)
        assert rows.shape == (21, PAIRS + VALUES + 2)
        keys, values = rows[:, :PAIRS], rows[:, PAIRS:-2]
        shown, asked = rows[:, -2] == 1, rows[:, -1] == 1
        np.testing.assert_array_equal(np.flatnonzero(asked), [17, 18, 19])
        assert shown.sum() == PAIRS
        assert not shown[17:].any()
        for phase in (shown, asked):  # each key once
            order = keys[phase].argmax(axis=1)
            assert sorted(order) == list(range(PAIRS))
            np.testing.assert_array_equal(keys[phase], 2 * np.eye(PAIRS)[order] - 1)
        named = values[shown].argmax(axis=1)
        np.testing.assert_array_equal(values[shown], 2 * np.eye(VALUES)[named] - 1)
        assert not values[asked].any()
        blank = ~shown & ~asked
        blank[-1] = False
        assert (rows[blank][:, :-2] != 0).all() == (noise > 0)
        assert not rows[blank][:, -2:].any()
        assert not rows[-1].any()
        orders.add((tuple(keys[shown].argmax(1)), tuple(keys[asked].argmax(1))))
        moments += np.flatnonzero(shown).tolist()
    assert len(orders) > 15
    assert set(moments) >= set(range(1, 16))


def test_values_are_uniform_and_of_their_own() -> None:
    env = make_vector_env(f"{NAME}?length=4&pairs=2&values=3", 1800)
    env.reset(seed=list(range(1800)))
    values = env.unwrapped.values
    for first in range(3):
        for second in range(3):
            share = np.mean((values == [first, second]).all(axis=1))
            assert share == pytest.approx(1 / 9, abs=0.025)


def test_every_answer_counts_alike() -> None:
    rows = watch(NAME, 5, length=12, pairs=PAIRS, values=VALUES)
    table = {int(row[:PAIRS].argmax()): int(row[PAIRS:-2].argmax()) for row in rows if row[-2] == 1}
    asked = [int(row[:PAIRS].argmax()) for row in rows if row[-1] == 1]
    env = gymnasium.make(NAME, length=12, pairs=PAIRS, values=VALUES)
    for wrong in (None, 0, 1, 2):
        env.reset(seed=5)
        early = [env.step(1 + table[asked[0]])[1] for _ in range(9)]
        answers = [table[key] for key in asked]
        if wrong is not None:
            answers[wrong] = (answers[wrong] + 1) % VALUES
        late = [env.step(1 + answer)[1] for answer in answers]
        assert not any(early)
        assert late == [(i != wrong) / PAIRS for i in range(PAIRS)]
    env.reset(seed=5)
    assert sum(env.step(0)[1] for _ in range(12)) == 0


@pytest.mark.parametrize(("pairs", "values"), [(1, 2), (4, 4), (16, 2)])
@pytest.mark.parametrize("noise", [0.0, 1.0])
def test_memory_is_what_it_takes(pairs: int, values: int, noise: float) -> None:
    name = f"{NAME}?length=100&pairs={pairs}&values={values}&noise={noise}"
    env = make_vector_env(name, 400)
    expert = RecallExpert(env)
    totals = []
    for policy in (
        expert.act,
        lambda seen: 1 + seen[:, pairs:-2].argmax(axis=1),  # the value that is seen now
    ):
        observations, _ = env.reset(seed=list(range(400)))
        total = np.zeros(400)
        for _ in range(100):
            observations, rewards, ended, _, _ = env.step(policy(observations))
            total += rewards
        assert ended.all()
        totals.append(total)
    np.testing.assert_allclose(totals[0], 1, rtol=1e-12)
    assert totals[1].mean() == pytest.approx(1 / values, abs=0.08)


@pytest.mark.parametrize("options", ["pairs=0", "values=1", "length=7"])
def test_no_such_task(options: str) -> None:
    with pytest.raises(UserError, match=options.split("=")[0]):
        make_vector_env(f"{NAME}?{options}", 1)

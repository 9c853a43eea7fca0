"""Bounds that are far wider than the data count as none, in everything that reads them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import gymnasium as gym
import numpy as np
import pytest
from exported_agents import exported

import aaren_rl as arl
from aaren_rl.agents import AgentSpec, load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.data.statistics import wide_parts
from aaren_rl.errors import UserError
from aaren_rl.export.c_header import c_header, c_step
from aaren_rl.export.c_policy import CPolicy
from aaren_rl.export.card import make_card
from aaren_rl.export.command import write_export
from aaren_rl.runtime import OnnxPolicy

LARGEST = float(np.finfo(np.float32).max)
WIDE = gym.spaces.Box(-LARGEST, LARGEST, (2,), np.float32)
NONE = gym.spaces.Box(-np.inf, np.inf, (2,), np.float32)
SMALL: dict[str, Any] = {
    "width": 16,
    "layers": 1,
    "context_length": 4,
    "batch_size": 4,
    "updates": 4,
    "device": "cpu",
    "env": "none",
    "target_return": 1.0,
}


def recorded(space: gym.spaces.Space[Any], actions: Any = None, **arrays: Any) -> TrajectoryDataset:
    rng = np.random.default_rng(0)
    content = {
        "observations": rng.normal(size=(40, 3)),
        "actions": rng.normal(3, 0.5, size=(40, 2)).astype(np.float32),
        "rewards": rng.normal(size=40),
        "terminals": np.zeros(40, bool),
        "timeouts": np.arange(40) % 8 == 7,
    }
    given = {} if actions is None else {"actions": actions}
    return TrajectoryDataset.from_arrays(**{**content, **given, **arrays}, action_space=space)


def acted(policy: Any) -> np.ndarray:
    """Four steps; the same observations for every policy."""
    seen = np.random.default_rng(2).normal(size=(4, 1, 3))
    return np.stack([policy.act(row, np.ones(1) if i else None) for i, row in enumerate(seen)])


@pytest.mark.parametrize("head", ["continuous", "tanh-gaussian", "gaussian-mixture"])
def test_they_are_learned_as_without_bounds(
    head: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The trained agents are the same, and so they are after saving and in every export."""
    arl.data.episode._log_once.cache_clear()
    made = [
        arl.train(recorded(space), head=head, out=tmp_path / name, **SMALL).agent
        for name, space in (("wide", WIDE), ("none", NONE))
    ]
    assert [record.message for record in caplog.records if "1,000 times" in record.message] == [
        "data: actions: the bounds of Box(-3.4028235e+38, 3.4028235e+38, (2,), float32) are over "
        "1,000 times as wide as the data: they are learned in units of the data instead"
    ]
    wide = load_agent(tmp_path / "wide" / "last")
    wanted = acted(made[1].policy(1))
    assert (np.abs(wanted - 3) < 3).all()
    for agent in (made[0], wide):
        np.testing.assert_array_equal(acted(agent.policy(1)), wanted)
    others: list[Any] = [OnnxPolicy(exported(wide, tmp_path), 1, 1.0)]
    if head == "continuous":
        file, content = tmp_path / "policy.h", c_header(wide)
        write_export(file, content, make_card(wide, c_step(wide), file, content, "c"))
        others.append(CPolicy(file, wide))
    for policy in others:
        np.testing.assert_allclose(acted(policy), wanted, rtol=1e-4)


def test_integers_are_rounded_and_stay_inside(tmp_path: Path) -> None:
    limits = np.iinfo(np.int32)
    space = gym.spaces.Box(limits.min, limits.max, (2,), np.int32)
    actions = np.random.default_rng(0).integers(-5, 6, (40, 2)).astype(np.int32)
    agent = arl.train(recorded(space, actions), out=tmp_path, action_chunk=2, **SMALL).agent
    found = acted(agent.policy(1))
    assert found.dtype == np.int32
    assert (np.abs(found) < 20).all()


def test_each_part_has_its_own(tmp_path: Path) -> None:
    narrow = gym.spaces.Box(-1, 1, (2,), np.float32)
    space = gym.spaces.Dict(a=narrow, b=gym.spaces.Discrete(2), c=WIDE)
    rng = np.random.default_rng(0)
    parts = {
        "a": rng.uniform(-1, 1, (40, 2)).astype(np.float32),
        "b": rng.integers(0, 2, 40),
        "c": rng.normal(size=(40, 2)).astype(np.float32),
    }
    agent: Any = arl.train(recorded(space, parts), out=tmp_path, **SMALL).agent
    assert agent.spec.wide_actions == (False, False, True)
    assert [part.bounded for part in agent.actions.heads] == [True, True, False]
    action = load_agent(tmp_path / "last").policy(1).act(np.ones((1, 3)))
    assert (np.abs(action["c"]) < 20).all()


@pytest.mark.parametrize(
    ("high", "actions", "wide"),
    [
        (999.0, [0, 2], False),
        (1001.0, [0, 2], True),
        (1.0, [0, 0.001], False),  # a choice, however small the actions are
        (1e6, [3, 3], False),  # constant
        (1e6, [0.1, np.nextafter(np.float32(0.1), 1)], False),  # but for rounding
        (np.inf, [0, 2], False),  # without bounds anyway
    ],
)
def test_when_bounds_are_wide(high: float, actions: list[float], wide: bool) -> None:
    rows = np.array(actions, np.float32)[:, None]
    assert wide_parts(rows, gym.spaces.Box(-high, high, (1,), np.float32)) == (wide,)


def test_agents_from_before_keep_their_units(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """When they are loaded, resumed and started from."""
    data = recorded(gym.spaces.Box(0, 1e6, (2,), np.float32))
    with monkeypatch.context() as before:
        before.setattr("aaren_rl.training.build.wide_parts", lambda *_: (False,))
        old = arl.train(data, out=tmp_path / "old", **SMALL).agent
    assert "wide_actions" not in old.spec.to_json()
    assert load_agent(tmp_path / "old" / "last").actions.bounded
    more = {**SMALL, "updates": 8, "resume": True}
    assert arl.train(data, out=tmp_path / "old", **more).agent.actions.bounded
    started = arl.train(data, out=tmp_path / "new", init_from=tmp_path / "old", **SMALL)
    assert started.agent.actions.bounded


def test_a_card_with_flags_for_other_parts_is_refused() -> None:
    spec = AgentSpec(NONE, WIDE, wide_actions=(True, False))
    with pytest.raises(UserError, match="wide_actions: 1 flags expected"):
        AgentSpec.from_json(spec.to_json())

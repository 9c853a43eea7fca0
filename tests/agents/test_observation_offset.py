"""Unix seconds in float64: what is seen in acting is shifted as the data were."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from agent_cases import make_agent
from gymnasium import spaces

from aaren_rl.agents import AGENTS, Agent, load_agent
from aaren_rl.data import TrajectoryDataset
from aaren_rl.errors import UserError
from aaren_rl.export.steps import step_of
from aaren_rl.training.build import build_agent
from aaren_rl.training.config import TrainConfig

OFFSET = (1.7e9, 0.0, 0.0, 0.0)
SEEN = np.random.default_rng(0).normal(size=(6, 2, 4))


def actions(agent: Agent, observations: np.ndarray, mode: str | None) -> np.ndarray:
    policy = agent.policy(2, mode=mode)  # type: ignore[arg-type]
    rewards, dones = np.zeros(2), np.zeros(2, bool)
    found = [policy.act(observations[0])]
    return np.stack(found + [policy.act(each, rewards, dones) for each in observations[1:]])


@pytest.mark.parametrize("name", AGENTS)
def test_every_way_of_acting(name: str, tmp_path: Path) -> None:
    plain = make_agent(name)
    agent = make_agent(name)
    agent.spec = replace(agent.spec, observation_offset=OFFSET)
    agent.save(tmp_path / "agent")
    loaded = load_agent(tmp_path / "agent")
    assert loaded.spec.observation_offset == OFFSET
    shown = SEEN + OFFSET  # float64 keeps 2e-7 of them
    for mode in (None, *agent.modes) if agent.has_memory else (None,):
        wanted = actions(plain, (shown - OFFSET).astype(np.float32), mode)
        np.testing.assert_array_equal(actions(loaded, shown, mode), wanted)
    with pytest.raises(UserError, match="cannot be exported"):
        step_of(loaded)


def test_training_tells_the_agent() -> None:
    observations = np.stack([1.7e9 + np.arange(40), np.arange(40) % 7], axis=1)
    data = TrajectoryDataset.from_arrays(
        observations,
        np.zeros((40, 1), np.float32),
        np.ones(40),
        np.arange(40) % 10 == 9,
        observation_space=spaces.Box(-np.inf, np.inf, (2,), np.float64),
    )
    agent = build_agent(TrainConfig(), data, None)
    assert agent.spec.observation_offset == (1.7e9 + 19.5, 0.0)
    np.testing.assert_allclose(agent.observation_mean, [0, observations[:, 1].mean()], atol=1e-6)

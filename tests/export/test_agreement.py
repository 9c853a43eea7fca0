"""The export's own check sees what it should see."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from exported_agents import exported, make_aaren, make_agent

from aaren_rl.acting import Policy
from aaren_rl.export.agreement import Agreement, measure_agreement
from aaren_rl.runtime import OnnxPolicy


class Altered(Policy):
    """Another policy's actions, changed at one step in one environment."""

    def __init__(self, policy: Policy, step: int, by: float) -> None:
        self.policy, self.step, self.by, self.taken = policy, step, by, 0

    def act(
        self,
        observations: np.ndarray,
        rewards: np.ndarray | None = None,
        dones: np.ndarray | None = None,
        executed_actions: np.ndarray | None = None,
    ) -> np.ndarray:
        actions = self.policy.act(observations, rewards, dones)
        if self.taken == self.step:
            actions[2, 1] += self.by
        self.taken += 1
        return actions

    def reset(self, mask: np.ndarray | None = None) -> None:
        self.policy.reset(mask)

    @property
    def state_bytes(self) -> int:
        return self.policy.state_bytes


@pytest.mark.parametrize("by", [2e-5, np.nan])
@pytest.mark.parametrize("step", [0, 30, 59])
@pytest.mark.parametrize("environment", ["Hopper-v5", None])
def test_one_wrong_number_is_found(
    tmp_path: Path, step: int, by: float, environment: str | None
) -> None:
    agent = make_aaren()
    file = exported(agent, tmp_path)
    found = measure_agreement(
        agent,
        lambda num_envs, target: Altered(OnnxPolicy(file, num_envs, target), step, by),
        environment,
        steps=60,
    )
    assert not found.agrees
    if np.isfinite(by):
        assert found.largest_difference == pytest.approx(by, rel=0.1)


def test_other_weights_are_found(tmp_path: Path) -> None:
    file = exported(make_aaren(seed=1), tmp_path)
    found = measure_agreement(
        make_aaren(), lambda n, target: OnnxPolicy(file, n, target), "Hopper-v5", steps=20
    )
    assert found.largest_difference > 0.01


def test_episodes_end_at_different_steps(tmp_path: Path) -> None:
    agent = make_agent("behavior-cloning")
    file = exported(agent, tmp_path)
    ends: list[np.ndarray] = []

    class Watching(OnnxPolicy):
        def act(
            self,
            observations: np.ndarray,
            rewards: np.ndarray | None = None,
            dones: np.ndarray | None = None,
            executed_actions: np.ndarray | None = None,
        ) -> np.ndarray:
            assert dones is not None
            ends.append(dones.copy())
            return super().act(observations, rewards, dones, executed_actions)

    found = measure_agreement(
        agent,
        lambda num_envs, _: Watching(file, num_envs),
        "Hopper-v5",
        steps=200,
    )
    begun = np.stack(ends).sum(axis=0)
    assert found.agrees
    assert begun.sum() == found.episodes
    assert len({tuple(np.flatnonzero(column)) for column in np.stack(ends).T}) == 4


def test_the_bound_is_inclusive_and_nan_is_outside() -> None:
    assert Agreement(1, 1, 1e-5).agrees
    assert not Agreement(1, 1, 1.1e-5).agrees
    assert not Agreement(1, 1, float("nan")).agrees

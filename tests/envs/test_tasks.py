from __future__ import annotations

import gymnasium
import pytest

from aaren_rl.envs import PAPER_TASKS, environment_id, reference_scores, target_return

HOPPER = (-20.272305, 3234.3)
NAMES = {
    "mujoco-zoo/hopper/medium-v0": ("Hopper-v5", 3600.0, HOPPER),
    "aaren-rl/hopper-small-v0": ("Hopper-v5", 3600.0, HOPPER),
    "hopper-medium-v2": ("Hopper-v5", 3600.0, HOPPER),
    "hopper_medium-v2": ("Hopper-v5", 3600.0, HOPPER),
    "Hopper-v5": ("Hopper-v5", 3600.0, HOPPER),
    "Hopper-v4": ("Hopper-v4", 3600.0, HOPPER),
    "hopper": ("Hopper-v5", 3600.0, HOPPER),
    "mujoco/halfcheetah/medium-v0": ("HalfCheetah-v5", 6000.0, (-280.178953, 12135.0)),
    "halfcheetah-medium-replay-v2": ("HalfCheetah-v5", 6000.0, (-280.178953, 12135.0)),
    "halfcheetah-medium-expert-v2": ("HalfCheetah-v5", 12000.0, (-280.178953, 12135.0)),
    "mujoco/halfcheetah/expert-v0": ("HalfCheetah-v5", 12000.0, (-280.178953, 12135.0)),
    "walker2d-medium-v2": ("Walker2d-v5", 5000.0, (1.629008, 4592.3)),
    "ant-medium-v2": ("Ant-v5", 6000.0, (-325.6, 3879.7)),
    "CartPole-v1": ("CartPole-v1", None, None),
    "D4RL/antmaze/umaze-v1": (None, None, None),
    "bullet-hopper-medium-v0": (None, None, None),
    "D4RL/door/human-v2": (None, None, None),
}


@pytest.mark.parametrize("name", NAMES)
def test_what_a_name_says(name: str) -> None:
    assert (environment_id(name), target_return(name), reference_scores(name)) == NAMES[name]


def test_the_papers_twelve_tasks() -> None:
    assert len(PAPER_TASKS) == 12
    assert len({task.d4rl_name for task in PAPER_TASKS}) == 12
    for task in PAPER_TASKS:
        assert task.d4rl_name == f"{task.robot}-{task.quality}-v2"
        assert task.environment_id == environment_id(task.d4rl_name)
        assert task.environment_id in gymnasium.registry
        assert task.target_returns == (target_return(task.d4rl_name),)
        assert task.reference_scores == reference_scores(task.robot)
    published = [task.minari_id for task in PAPER_TASKS if task.minari_id]
    assert published == [
        f"mujoco/{robot}/medium-v0" for robot in ("hopper", "halfcheetah", "walker2d", "ant")
    ]

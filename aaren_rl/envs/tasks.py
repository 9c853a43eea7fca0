"""The paper's tasks: four robots, three qualities of data, and what names say about them."""

from __future__ import annotations

from dataclasses import dataclass

import gymnasium

from aaren_rl.data.reference_scores import REFERENCE_SCORES, reference_scores, robot_of, words

__all__ = [
    "PAPER_TASKS",
    "Task",
    "environment_id",
    "reference_scores",
    "robot_of",
    "target_return",
]

ENVIRONMENTS = {
    "hopper": "Hopper-v5",
    "halfcheetah": "HalfCheetah-v5",
    "walker2d": "Walker2d-v5",
    "ant": "Ant-v5",
}
TARGET_RETURNS = {"hopper": 3600.0, "halfcheetah": 6000.0, "walker2d": 5000.0, "ant": 6000.0}
HALFCHEETAH_EXPERT_TARGET = 12000.0
QUALITIES = ("medium", "medium-replay", "medium-expert")


@dataclass(frozen=True)
class Task:
    """One robot with one quality of data.

    Attributes:
        robot: hopper, halfcheetah, walker2d or ant.
        quality: medium, medium-replay or medium-expert.
        environment_id: where agents are evaluated.
        d4rl_name: the data that the paper learned from.
        minari_id: Minari's published data of the same robot and quality, where there are any.
            They come from other policies and newer environments: scores do not compare.
        target_returns: what the agents are asked for, the main one first.
        reference_scores: returns that count as 0 and 100.
    """

    robot: str
    quality: str
    environment_id: str
    d4rl_name: str
    minari_id: str | None
    target_returns: tuple[float, ...]
    reference_scores: tuple[float, float]


def environment_id(name: str) -> str | None:
    """The Gymnasium environment that a dataset's name is about, or None.

    A name that Gymnasium itself knows is returned as it is.
    """
    if name in gymnasium.registry:
        return name
    robot = robot_of(name)
    return None if robot is None else ENVIRONMENTS[robot]


def target_return(name: str) -> float | None:
    """The return to ask for, by a dataset's, environment's or robot's name, or None."""
    robot = robot_of(name)
    if robot == "halfcheetah" and "expert" in words(name):
        return HALFCHEETAH_EXPERT_TARGET
    return None if robot is None else TARGET_RETURNS[robot]


def _task(robot: str, quality: str) -> Task:
    """The task of one robot and quality."""
    name = f"{robot}-{quality}-v2"
    target = target_return(name)
    assert target is not None
    return Task(
        robot=robot,
        quality=quality,
        environment_id=ENVIRONMENTS[robot],
        d4rl_name=name,
        minari_id=f"mujoco/{robot}/{quality}-v0" if quality == "medium" else None,
        target_returns=(target,),
        reference_scores=REFERENCE_SCORES[robot],
    )


PAPER_TASKS: tuple[Task, ...] = tuple(
    _task(robot, quality) for robot in ENVIRONMENTS for quality in QUALITIES
)

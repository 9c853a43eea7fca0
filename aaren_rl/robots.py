"""The paper's robots in one table: environment, usual target return, D4RL's reference scores.

The table applies to data whose name *and* environment are a robot's. A name alone is not enough:
`hopper` is also a task of DeepMind Control and of Bullet, with other physics and other returns.
"""

from __future__ import annotations

import math
import re
import sys
import warnings
from dataclasses import dataclass
from typing import Any, TypeVar

from gymnasium import ObservationWrapper
from gymnasium.envs.registration import EnvSpec, WrapperSpec

S = TypeVar("S", bound=Any)


@dataclass(frozen=True)
class Robot:
    """One of Gymnasium's MuJoCo robots.

    Attributes:
        name: as D4RL calls it.
        environment: Gymnasium id of the environment to act in.
        target_return: the usual target return.
        reference_scores: returns that count as 0 and 100, the same for D4RL's v0 to v2
            (`d4rl/infos.py`).
        observation_sizes: lengths of an observation, in the variants of the environment.
        action_size: length of an action.
        expert_target: the target return on data with expert episodes, where it differs.
    """

    name: str
    environment: str
    target_return: float
    reference_scores: tuple[float, float]
    observation_sizes: tuple[int, ...]
    action_size: int
    expert_target: float | None = None

    def target_for(self, dataset: str) -> float:
        """The usual target return on a dataset of this name."""
        if self.expert_target is not None and "expert" in words(dataset):
            return self.expert_target
        return self.target_return


ROBOTS = {
    robot.name: robot
    for robot in (
        Robot("hopper", "Hopper-v5", 3600.0, (-20.272305, 3234.3), (11, 12), 3),
        Robot("halfcheetah", "HalfCheetah-v5", 6000.0, (-280.178953, 12135.0), (17, 18), 6, 12e3),
        Robot("walker2d", "Walker2d-v5", 5000.0, (1.629008, 4592.3), (17, 18), 6),
        Robot("ant", "Ant-v5", 6000.0, (-325.6, 3879.7), (27, 29, 105, 107, 111, 113), 8),
    )
}
OTHER_PHYSICS = {"bullet", "dmcontrol", "dmc", "dm", "brax", "robosuite"}
"""Words in names of datasets for simulators that have robots of the same names."""
QUALITIES = re.compile(r"random|medium|expert|replay|full|simple|small|human|mixed|v?\d+")
"""Words that may follow a robot's name in one component of a dataset's name."""
ENTRY_POINTS = ("gymnasium.envs.mujoco.", "aaren_rl.envs.")
OTHER_TASKS = ("reward", "cost", "xml_file", "frame_skip", "healthy")
"""Parts of the names of options that change the rewards, the physics or the episodes' ends."""
OTHER_ACTS = ("reward", "action", "skip", "sticky", "timelimit")
"""Parts of the names of Gymnasium's wrappers that change the rewards, the actions or the ends."""
HARMLESS = ("ClipAction", "RescaleAction")
"""Such wrappers that only write the same actions in another way."""


def words(name: str) -> list[str]:
    """The lower-case words of a name: `D4RL/hopper/medium-v2` -> d4rl, hopper, medium, v2."""
    return re.split(r"[^a-z0-9]+", name.lower())


def robot_named(name: str) -> Robot | None:
    """The robot in the name of a dataset, environment or file, or None.

    Understands `hopper`, `hopper-medium-v2`, `mujoco-zoo/hopper/medium-v0`, `hopper_medium-v2`,
    `Hopper-v5`, but not `grass-hopper` or `hopper-hop`: the robot comes first in one component of
    the name, and only words for qualities and versions follow it there.
    """
    if OTHER_PHYSICS & set(words(name)):
        return None
    for component in re.split(r"[/:\\]", name.partition("?")[0]):
        first, *rest = words(component)
        if first in ROBOTS and all(QUALITIES.fullmatch(word) for word in rest):
            return ROBOTS[first]
    return None


def robot_of(
    name: str,
    environment: EnvSpec | None = None,
    sizes: tuple[int, int] | None = None,
) -> Robot | None:
    """The robot of a dataset, by its name and by its environment or its sizes, or None."""
    robot = robot_named(name)
    if robot is None:
        return None
    if environment is not None:
        fits = is_robot_environment(robot, environment)
    else:
        fits = sizes is None or (
            sizes[0] in robot.observation_sizes and sizes[1] == robot.action_size
        )
    return robot if fits else None


def is_robot_environment(robot: Robot, environment: EnvSpec) -> bool:
    """Whether an environment is Gymnasium's, or ours with hidden velocities, for this robot.

    Options and wrappers that change the rewards, the physics or the episodes' ends make it another
    environment (a time limit does not), and so does a wrapper of one's own, unless it changes
    observations alone.
    """
    entry_point = environment.entry_point
    return (
        isinstance(entry_point, str)
        and entry_point.startswith(ENTRY_POINTS)
        and environment.name.lower().endswith(robot.name)
        and not any(part in option.lower() for option in environment.kwargs for part in OTHER_TASKS)
        and all(_leaves_the_task(wrapper) for wrapper in environment.additional_wrappers)
    )


def _leaves_the_task(wrapper: WrapperSpec) -> bool:
    """Whether rewards, actions and the ends of episodes stay what they are."""
    module, _, name = wrapper.entry_point.partition(":")
    if module.startswith("gymnasium.wrappers"):
        return name in HARMLESS or not any(part in name.lower() for part in OTHER_ACTS)
    # Modules are not imported by the names that a file of data holds.
    kind = getattr(sys.modules.get(module), name, None)
    return isinstance(kind, type) and issubclass(kind, ObservationWrapper)


def reference_scores(
    name: str,
    environment: EnvSpec | None = None,
    sizes: tuple[int, int] | None = None,
) -> tuple[float, float] | None:
    """D4RL's returns for 0 and 100 on this dataset, or None; see `robot_of`."""
    robot = robot_of(name, environment, sizes)
    return None if robot is None else robot.reference_scores


def normalized(returns: S, reference: tuple[float, float]) -> S:
    """D4RL's score of returns, numbers or arrays: 100 (return - minimum) / (maximum - minimum)."""
    low, high = reference
    score: S = 100 * (returns - low) / (high - low)
    return score


def usable_reference(reference: tuple[float, float] | None) -> tuple[float, float] | None:
    """Reference scores, or None, with a warning, when no score can be normalised by them."""
    if reference is None:
        return None
    low, high = reference
    if math.isfinite(low) and math.isfinite(high) and low != high:
        return reference
    warnings.warn(
        f"reference scores {low} and {high} are not two different finite numbers: scores are "
        "plain returns",
        stacklevel=2,
    )
    return None

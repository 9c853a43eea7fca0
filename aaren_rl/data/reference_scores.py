"""Returns that stand for 0 and 100 in D4RL's normalised scores, by robot."""

from __future__ import annotations

import re

# Random and expert returns of D4RL's locomotion tasks, the same for v0 to v2 (d4rl/infos.py).
REFERENCE_SCORES: dict[str, tuple[float, float]] = {
    "hopper": (-20.272305, 3234.3),
    "halfcheetah": (-280.178953, 12135.0),
    "walker2d": (1.629008, 4592.3),
    "ant": (-325.6, 3879.7),
}


def words(name: str) -> list[str]:
    """The lower-case words of a name: `D4RL/hopper/medium-v2` -> d4rl, hopper, medium, v2."""
    return re.split(r"[^a-z0-9]+", name.lower())


def robot_of(name: str) -> str | None:
    """The robot that a dataset's, environment's or file's name is about, or None.

    Understands `hopper-medium-v2`, `mujoco-zoo/hopper/medium-v0`, `hopper_medium-v2.hdf5`,
    `Hopper-v5`. Bullet's robots share the names but neither the physics nor the scores.
    """
    parts = words(name)
    if "bullet" in parts:
        return None
    return next((robot for robot in REFERENCE_SCORES if robot in parts), None)


def reference_scores(name: str) -> tuple[float, float] | None:
    """D4RL's reference (minimum, maximum) return for a dataset or environment name, or None."""
    robot = robot_of(name)
    return None if robot is None else REFERENCE_SCORES[robot]

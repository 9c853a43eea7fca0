"""Environments to act in: made from whatever names them, checked, and stepped by one loop.

Importing this package registers its environments, `aaren/...`, with Gymnasium.
"""

from aaren_rl.envs.check import (
    check_environment,
    environment_of,
    reference_scores_of,
    robot_of_dataset,
)
from aaren_rl.envs.limits import missing_limit, time_limit
from aaren_rl.envs.loop import Actor, Step, play, recorded_episodes
from aaren_rl.envs.make import (
    EnvLike,
    environment_spec,
    limit_episodes,
    make_env,
    make_vector_env,
    saved_name,
)
from aaren_rl.envs.memory import expert_dataset, write_expert_dataset
from aaren_rl.envs.pixels import Pixels

__all__ = [
    "Actor",
    "EnvLike",
    "Pixels",
    "Step",
    "check_environment",
    "environment_of",
    "environment_spec",
    "expert_dataset",
    "limit_episodes",
    "make_env",
    "make_vector_env",
    "missing_limit",
    "play",
    "recorded_episodes",
    "reference_scores_of",
    "robot_of_dataset",
    "saved_name",
    "time_limit",
    "write_expert_dataset",
]

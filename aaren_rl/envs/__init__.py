"""Evaluation environments, the paper's tasks, and tasks that need memory.

Importing this package registers its environments, `aaren/...`, with Gymnasium.
"""

from aaren_rl.envs.expert_data import expert_dataset, write_expert_dataset
from aaren_rl.envs.mask_velocity import MaskVelocity
from aaren_rl.envs.minigrid_memory import FlatMiniGrid, MiniGridMemoryExpert
from aaren_rl.envs.passive_tmaze import PassiveTMaze, PassiveTMazeExpert
from aaren_rl.envs.recall import Recall, RecallExpert
from aaren_rl.envs.tasks import PAPER_TASKS, Task, environment_id, reference_scores, target_return
from aaren_rl.envs.vector import (
    check_environment,
    environment_of,
    environment_spec,
    make_vector_env,
)

__all__ = [
    "PAPER_TASKS",
    "FlatMiniGrid",
    "MaskVelocity",
    "MiniGridMemoryExpert",
    "PassiveTMaze",
    "PassiveTMazeExpert",
    "Recall",
    "RecallExpert",
    "Task",
    "check_environment",
    "environment_id",
    "environment_of",
    "environment_spec",
    "expert_dataset",
    "make_vector_env",
    "reference_scores",
    "target_return",
    "write_expert_dataset",
]

"""Evaluation environments and the paper's tasks."""

from aaren_rl.envs.tasks import PAPER_TASKS, Task, environment_id, reference_scores, target_return
from aaren_rl.envs.vector import check_environment, environment_of, make_vector_env

__all__ = [
    "PAPER_TASKS",
    "Task",
    "check_environment",
    "environment_id",
    "environment_of",
    "make_vector_env",
    "reference_scores",
    "target_return",
]

"""Acting in environments, scores of the episodes, and statistics over runs."""

from typing import TYPE_CHECKING

from aaren_rl.lazy import lazy_exports

if TYPE_CHECKING:
    from aaren_rl.evaluation.config import EvaluateConfig
    from aaren_rl.evaluation.cost import ActingCost, acting_cost
    from aaren_rl.evaluation.evaluating import Evaluation, evaluate, score_rows
    from aaren_rl.evaluation.memory import (
        MemoryHorizon,
        episode_batch,
        memory_horizon,
        plot_memory,
    )
    from aaren_rl.evaluation.rollouts import Episodes, rollout
    from aaren_rl.evaluation.scores import Row, Score, normalized_scores, score
    from aaren_rl.evaluation.statistics import Estimate, mean_interval
    from aaren_rl.evaluation.trying import try_environment
    from aaren_rl.evaluation.video import record_video

__all__ = [
    "ActingCost",
    "Episodes",
    "Estimate",
    "EvaluateConfig",
    "Evaluation",
    "MemoryHorizon",
    "Row",
    "Score",
    "acting_cost",
    "episode_batch",
    "evaluate",
    "mean_interval",
    "memory_horizon",
    "normalized_scores",
    "plot_memory",
    "record_video",
    "rollout",
    "score",
    "score_rows",
    "try_environment",
]
__getattr__, __dir__ = lazy_exports(__name__, __all__)

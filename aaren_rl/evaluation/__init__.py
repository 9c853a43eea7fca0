"""Acting in environments, and what came of it."""

from aaren_rl.evaluation.cost import ActingCost, acting_cost
from aaren_rl.evaluation.evaluate import EvaluateConfig, evaluate, evaluate_agent
from aaren_rl.evaluation.rollout import Episodes, rollout
from aaren_rl.evaluation.scores import Score, normalized_scores, score
from aaren_rl.evaluation.statistics import Estimate, mean_interval

__all__ = [
    "ActingCost",
    "Episodes",
    "Estimate",
    "EvaluateConfig",
    "Score",
    "acting_cost",
    "evaluate",
    "evaluate_agent",
    "mean_interval",
    "normalized_scores",
    "rollout",
    "score",
]

"""Acting in environments, and what came of it."""

from aaren_rl.evaluation.cost import ActingCost, acting_cost
from aaren_rl.evaluation.rollout import Episodes, rollout
from aaren_rl.evaluation.scores import Score, normalized_scores, score

__all__ = [
    "ActingCost",
    "Episodes",
    "Score",
    "acting_cost",
    "normalized_scores",
    "rollout",
    "score",
]

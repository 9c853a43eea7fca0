"""From episodes to the rows of a table."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from aaren_rl.agents import Agent
from aaren_rl.evaluation.rollout import Episodes


@dataclass(frozen=True)
class Score:
    """Episodes of one agent in one mode, asked for one return.

    Attributes:
        target_return: what was asked for; `None` for an agent that cannot be asked.
        score_mean: mean of the normalised score, 100 (return - min) / (max - min); of the plain
            return when the task has no reference scores.
        score_std: its standard deviation over episodes (population).
        normalized: whether the score is normalised.
        return_mean: mean return.
        return_std: its standard deviation over episodes.
        length_mean: mean episode length, steps.
        episodes: how many.
        returns: of every episode.
        lengths: of every episode.
    """

    target_return: float | None
    score_mean: float
    score_std: float
    normalized: bool
    return_mean: float
    return_std: float
    length_mean: float
    episodes: int
    returns: list[float]
    lengths: list[int]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return asdict(self)

    def brief(self) -> dict[str, Any]:
        """`to_json` without the single episodes."""
        return {k: v for k, v in asdict(self).items() if k not in ("returns", "lengths")}


def normalized_scores(returns: np.ndarray, reference: tuple[float, float] | None) -> np.ndarray:
    """D4RL's normalised score, 0 for the reference minimum and 100 for the maximum.

    The returns themselves when there is no reference.
    """
    if reference is None:
        return returns
    low, high = reference
    return 100 * (returns - low) / (high - low)


def score(agent: Agent, episodes: Episodes, target_return: float | None) -> Score:
    """Summarise episodes by the agent's reference scores."""
    scores = normalized_scores(episodes.returns, agent.spec.reference_scores)
    return Score(
        target_return=target_return,
        score_mean=float(scores.mean()),
        score_std=float(scores.std()),
        normalized=agent.spec.reference_scores is not None,
        return_mean=float(episodes.returns.mean()),
        return_std=float(episodes.returns.std()),
        length_mean=float(episodes.lengths.mean()),
        episodes=len(episodes.returns),
        returns=episodes.returns.tolist(),
        lengths=episodes.lengths.tolist(),
    )

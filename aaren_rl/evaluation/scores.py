"""From episodes to the rows of a table."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from aaren_rl.agents import Agent
from aaren_rl.envs.check import reference_scores_in
from aaren_rl.envs.make import EnvLike
from aaren_rl.evaluation.rollouts import Episodes
from aaren_rl.robots import normalized, usable_reference


@dataclass(frozen=True)
class Score:
    """Episodes of one agent in one mode, asked for one return.

    Attributes:
        target_return: the return asked for; `None` for an agent that cannot be asked.
        score_mean: mean of the normalised score, 100 (return - min) / (max - min); of the plain
            return when the task has no reference scores.
        score_std: its standard deviation over episodes (population).
        normalized: whether the score is normalised.
        return_mean: mean return.
        return_std: its standard deviation over episodes.
        length_mean: mean episode length, steps.
        episodes: how many.
        returns: of every episode; empty where they were not kept, as are the lengths.
        lengths: of every episode, steps.
        success: share of episodes that succeeded; `None` where successes are not known.
        task: the dataset of the task, for an agent of several tasks.
    """

    target_return: float | None
    score_mean: float
    score_std: float
    normalized: bool
    return_mean: float
    return_std: float
    length_mean: float
    episodes: int
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    success: float | None = None
    task: str | None = None

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values; `success` and `task` are left out when they are `None`."""
        optional = ("success", "task")
        return {k: v for k, v in asdict(self).items() if k not in optional or v is not None}


@dataclass(frozen=True, kw_only=True)
class Row(Score):
    """A score with its agent and mode.

    Attributes:
        agent: the agent's name.
        mode: how it acted, see `Agent.policy`.
    """

    agent: str
    mode: str

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {"agent": self.agent, "mode": self.mode, **super().to_json()}


def normalized_scores(returns: np.ndarray, reference: tuple[float, float] | None) -> np.ndarray:
    """D4RL's normalised score, 0 for the reference minimum and 100 for the maximum.

    The returns themselves without a usable reference.
    """
    usable = usable_reference(reference)
    return returns if usable is None else normalized(returns, usable)


def score(
    agent: Agent, episodes: Episodes, target_return: float | None, env: EnvLike | None = None
) -> Score:
    """Summarise episodes by the agent's reference scores.

    Args:
        agent: the agent that acted.
        episodes: its episodes.
        target_return: the return that was asked for.
        env: where it acted, if that is not the agent's own environment. Scores are plain returns
            where a robot's reference scores do not count; see `reference_scores_in`.
    """
    own = agent.spec.reference_scores
    reference = usable_reference(reference_scores_in(env, agent.spec.dataset, own))
    score_mean, score_std = _mean_and_std(normalized_scores(episodes.returns, reference))
    return_mean, return_std = _mean_and_std(episodes.returns)
    return Score(
        target_return=target_return,
        score_mean=score_mean,
        score_std=score_std,
        normalized=reference is not None,
        return_mean=return_mean,
        return_std=return_std,
        length_mean=float(episodes.lengths.mean()),
        episodes=len(episodes.returns),
        returns=episodes.returns.tolist(),
        lengths=episodes.lengths.tolist(),
        success=None if episodes.successes is None else float(episodes.successes.mean()),
        task=None if agent.spec.task is None else agent.spec.dataset,
    )


def best_score(scores: Sequence[Score]) -> Score:
    """The best of an evaluation's scores; with several tasks the mean of each one's best."""
    tasks = list(dict.fromkeys(each.task for each in scores))
    best = [max((s for s in scores if s.task == t), key=lambda s: s.score_mean) for t in tasks]
    if len(best) == 1:
        return best[0]
    names = ("score_mean", "score_std", "return_mean", "return_std", "length_mean")
    means: dict[str, Any] = {
        name: float(np.mean([getattr(each, name) for each in best])) for name in names
    }
    counted = [each.success for each in best if each.success is not None]
    return Score(
        target_return=None,
        normalized=all(each.normalized for each in best),
        episodes=sum(each.episodes for each in best),
        success=float(np.mean(counted)) if len(counted) == len(best) else None,
        **means,
    )


def _mean_and_std(values: np.ndarray) -> tuple[float, float]:
    """Mean and population standard deviation, without an overflow for large values."""
    largest = float(np.abs(values).max())
    if largest < 1e150:
        return float(values.mean()), float(values.std())
    scaled = values / largest
    return float(scaled.mean() * largest), float(scaled.std() * largest)


def warn_of_far_targets(targets: Sequence[float | None], best: float | None) -> None:
    """Warn of target returns that are far above the best return of the data."""
    for target in targets:
        if best is not None and target is not None and target > best + abs(best):
            warnings.warn(
                f"target return {target:g} is far above the best return in the data, {best:g}",
                stacklevel=2,
            )

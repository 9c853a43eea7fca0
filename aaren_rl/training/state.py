"""Progress and results of a training run, as records that are written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from aaren_rl.evaluation import Score
from aaren_rl.evaluation.length import LengthError
from aaren_rl.records import convert


@dataclass(frozen=True)
class Evaluated:
    """The score of one target return in one evaluation.

    Attributes:
        update: after which it was measured.
        train_seconds: spent on updates until then; `None` where it was not kept.
        score: in the history without the single episodes' returns and lengths.
    """

    update: int
    train_seconds: float | None
    score: Score

    def to_json(self) -> dict[str, Any]:
        """As one flat JSON object."""
        content = {"update": self.update, "train_seconds": self.train_seconds}
        score = self.score.to_json()
        if not self.score.returns:
            del score["returns"], score["lengths"]
        return {**{k: v for k, v in content.items() if v is not None}, **score}

    @staticmethod
    def from_json(content: dict[str, Any], where: str) -> Evaluated:
        """The inverse of `to_json`; messages begin with `where`."""
        score = convert(content, Score, where)
        return Evaluated(content["update"], content.get("train_seconds"), score)


@dataclass(frozen=True)
class HeldOut:
    """What was measured on held-out episodes after an update; see `OfflineMetrics`."""

    update: int
    lengths: list[LengthError]
    margin: dict[str, float | None] = field(default_factory=dict)


@dataclass(frozen=True)
class EvaluationError:
    """An evaluation that failed: after which update, and what the exception said."""

    update: int
    error: str


@dataclass
class RunState:
    """Counters and results of a run; weights and random generators are saved apart from it.

    Attributes:
        update: updates done.
        evaluated_at: the update of the last evaluation; -1 before the first.
        logged_at: the update of the last log entry of the training itself; -1 before the first.
        logged: that entry, which is logged again when the process dies in an evaluation.
        train_seconds: spent on updates, without evaluations.
        scores: of the last evaluation, one for each target return; empty when it failed.
        best: the highest score so far.
        history: of all evaluations.
        offline: of all measurements on held-out episodes.
        evaluation_errors: evaluations that failed.
    """

    update: int = 0
    evaluated_at: int = -1
    logged_at: int = -1
    logged: dict[str, float | None] = field(default_factory=dict)
    train_seconds: float = 0.0
    scores: list[Score] = field(default_factory=list)
    best: Evaluated | None = None
    history: list[Evaluated] = field(default_factory=list)
    offline: list[HeldOut] = field(default_factory=list)
    evaluation_errors: list[EvaluationError] = field(default_factory=list)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        best = None if self.best is None else self.best.to_json()
        return {
            **asdict(self),
            "best": best,
            "history": [row.to_json() for row in self.history],
            "scores": [score.to_json() for score in self.scores],
        }

    def results(self) -> dict[str, Any]:
        """What `summary.json` holds of it."""
        counters = ("update", "evaluated_at", "logged_at", "logged")
        return {name: value for name, value in self.to_json().items() if name not in counters}

    @staticmethod
    def from_json(content: dict[str, Any], where: str) -> RunState:
        """The inverse of `to_json`; other entries of `content` are ignored.

        Raises:
            KeyError, UserError: content that is something else.
        """
        best = content["best"]
        records = {
            "best": None if best is None else Evaluated.from_json(best, where),
            "history": [Evaluated.from_json(row, where) for row in content["history"]],
        }
        state: RunState = convert({**content, **records}, RunState, where)
        return state

"""What a training run has done so far, as records that go to JSON and back."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, replace
from typing import Any

from aaren_rl.evaluation import Score
from aaren_rl.evaluation.length import LengthError


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
        score = self.score.to_json() if self.score.returns else self.score.brief()
        return {**{k: v for k, v in content.items() if v is not None}, **score}

    @staticmethod
    def from_json(content: dict[str, Any]) -> Evaluated:
        """The inverse of `to_json`."""
        score = {"returns": [], "lengths": [], **content}
        update, seconds = score.pop("update"), score.pop("train_seconds", None)
        return Evaluated(update, seconds, Score(**score))

    def without_episodes(self) -> Evaluated:
        """The same without the single episodes."""
        return replace(self, score=replace(self.score, returns=[], lengths=[]))


@dataclass(frozen=True)
class HeldOut:
    """What was measured on held-out episodes after an update; see `OfflineMetrics`."""

    update: int
    lengths: list[LengthError]
    margin: dict[str, float]

    @staticmethod
    def from_json(content: dict[str, Any]) -> HeldOut:
        """The inverse of `dataclasses.asdict`."""
        return HeldOut(**{**content, "lengths": [LengthError(**row) for row in content["lengths"]]})


@dataclass(frozen=True)
class EvaluationError:
    """An evaluation that failed: after which update, and what the exception said."""

    update: int
    error: str


@dataclass
class RunState:
    """Counters and results of a run; weights and random generators are kept beside it.

    Attributes:
        update: updates done.
        train_seconds: spent on them, without evaluations.
        evaluated_at: the update of the last evaluation; -1 before the first.
        scores: of the last evaluation, one for each target return; empty when it failed.
        best: the highest score so far.
        history: of all evaluations.
        offline: of all measurements on held-out episodes.
        evaluation_errors: evaluations that failed.
        logged_at: the update of the last log entry of the training itself; -1 before the first.
        logged: that entry. Needed when the process dies in an evaluation: what was logged at this
            update is then taken back with the evaluation.
    """

    update: int = 0
    train_seconds: float = 0.0
    evaluated_at: int = -1
    scores: list[Score] = field(default_factory=list)
    best: Evaluated | None = None
    history: list[Evaluated] = field(default_factory=list)
    offline: list[HeldOut] = field(default_factory=list)
    evaluation_errors: list[EvaluationError] = field(default_factory=list)
    logged_at: int = -1
    logged: dict[str, float] = field(default_factory=dict)

    def results(self) -> dict[str, Any]:
        """What `summary.json` holds of it."""
        return {
            "train_seconds": self.train_seconds,
            "scores": [row.to_json() for row in self.scores],
            "best": None if self.best is None else self.best.to_json(),
            "history": [row.to_json() for row in self.history],
            "offline": [asdict(row) for row in self.offline],
            "evaluation_errors": [asdict(row) for row in self.evaluation_errors],
        }

    def to_json(self) -> dict[str, Any]:
        """As plain JSON values."""
        return {
            "update": self.update,
            "evaluated_at": self.evaluated_at,
            **self.results(),
            "logged_at": self.logged_at,
            "logged": self.logged,
        }

    @staticmethod
    def from_json(content: dict[str, Any]) -> RunState:
        """The inverse of `to_json`; other entries of `content` are passed over.

        Raises:
            KeyError, TypeError: content that is something else.
        """
        best = content["best"]
        return RunState(
            update=content["update"],
            train_seconds=content["train_seconds"],
            evaluated_at=content["evaluated_at"],
            scores=[Score(**row) for row in content["scores"]],
            best=None if best is None else Evaluated.from_json(best),
            history=[Evaluated.from_json(row) for row in content["history"]],
            offline=[HeldOut.from_json(row) for row in content["offline"]],
            evaluation_errors=[
                EvaluationError(**row) for row in content.get("evaluation_errors", [])
            ],
            logged_at=content.get("logged_at", -1),
            logged=content.get("logged", {}),
        )

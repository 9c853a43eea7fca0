"""What runs leave behind, as records read from their JSON files."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from aaren_rl.evaluation.length import LengthError
from aaren_rl.evaluation.scores import Score
from aaren_rl.files import read_json
from aaren_rl.records import convert

T = TypeVar("T")


@dataclass(frozen=True)
class Evaluated:
    """One evaluation while training: what comparisons need of its `Score`, and its update."""

    score_mean: float
    target_return: float | None = None
    normalized: bool = True
    update: int = 0


@dataclass(frozen=True)
class HeldOut:
    """The action errors on held-out episodes that were measured at one evaluation."""

    lengths: list[LengthError]


@dataclass(frozen=True)
class Summary:
    """A training run's `summary.json`, as far as comparisons read it."""

    seed: int
    parameters: int
    train_seconds: float
    mode: str = "carry"
    dataset_score: float | None = None
    scores: list[Evaluated] = field(default_factory=list)
    history: list[Evaluated] = field(default_factory=list)
    offline: list[HeldOut] = field(default_factory=list)

    @property
    def errors(self) -> list[LengthError]:
        """Action errors of the last agent on held-out episodes; none when nothing was held out."""
        return self.offline[-1].lengths if self.offline else []


@dataclass(frozen=True)
class Row(Score):
    """One evaluation after training: a `Score`, and what acted.

    Attributes:
        agent: the agent's name in the benchmark.
        mode: how it acted.
        kind: `score`, which counts, or `curve`, a point of the return-conditioning curve.
        update: the update after which the agent was kept.
        reference_scores: returns that count as 0 and 100; `None` when scores are plain returns.
    """

    agent: str
    mode: str
    kind: str
    update: int
    reference_scores: tuple[float, float] | None


@dataclass(frozen=True)
class Cost:
    """What acting costs in one mode: median time of a step, and bytes of the state at both ends."""

    mode: str
    act_microseconds: float
    steps: int
    state_bytes_first: int
    state_bytes_last: int


@dataclass(frozen=True)
class Result:
    """A unit's `result.json`: what was asked for, what came of it, and on what machine."""

    unit: dict[str, Any]
    summary: Summary
    rows: list[Row]
    costs: list[Cost]
    peak_bytes: int
    torch: str
    device: str
    threads: int


def read_record(file: Path, kind: type[T]) -> T:
    """A record from a JSON file; fields that the record lacks are left out.

    Raises:
        UserError: the file is missing or broken, or a field is missing or of another type.
    """
    record: T = convert(read_json(file), kind, str(file))
    return record

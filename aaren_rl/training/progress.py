"""How a run shows itself while it works: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

from types import TracebackType

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)


class TrainingProgress:
    """A progress bar on standard error.

    Args:
        title: what is being trained.
        total: updates in all.
        done: updates done before.
        quiet: show nothing (all processes but the first).
    """

    def __init__(self, title: str, total: int, done: int, quiet: bool = False) -> None:
        self._console = Console(stderr=True, quiet=quiet)
        self._bar = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._title, self._total = title, total
        self._task = self._bar.add_task(title, total=total, completed=done, note="")
        self._loss = self._score = ""

    def __enter__(self) -> TrainingProgress:
        self._bar.__enter__()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._bar.__exit__(kind, error, trace)

    def update(self, done: int, loss: float | None = None) -> None:
        """Move the bar to `done` updates."""
        if loss is not None:
            self._loss = f"loss {loss:.4f}"
        self._bar.update(self._task, completed=done, note=f"{self._loss} {self._score}".strip())

    def evaluated(self, done: int, score: float, spread: float) -> None:
        """Show an evaluation's score; a line of its own where there is no bar."""
        self._score = f"score {score:.1f} ± {spread:.1f}"
        if self._bar.disable:
            note = f"{self._loss} {self._score}".strip()
            self._console.print(
                f"{self._title}: update {done}/{self._total}, {note}", soft_wrap=True
            )
        self.update(done)

"""Progress of a run: a bar on a terminal, plain lines elsewhere."""

from __future__ import annotations

import time
from collections.abc import Callable

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

LINE_SECONDS = 30.0
"""Time between two lines where there is no terminal to draw a bar on."""


def duration(seconds: float) -> str:
    """Seconds in words: `40 s`, `3 min 20 s`, `2 h 5 min`."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


class TrainingProgress:
    """A progress bar on standard error, or a line every half minute where there is no terminal."""

    def __init__(
        self,
        title: str,
        total: int,
        done: int,
        quiet: bool = False,
        clock: Callable[[], float] = time.monotonic,
        unit: str = "update",
    ) -> None:
        self._console = Console(stderr=True, quiet=quiet, markup=False, emoji=False)
        self._clock, self._started = clock, (clock(), done)
        self._last_line = self._started[0]
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._title, self._total, self._unit = title, total, unit
        self._task = self._bar.add_task(title, total=total, completed=done, note="")
        self._loss = self._score = ""

    def __enter__(self) -> TrainingProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def update(self, done: int, loss: float | None = None) -> None:
        """Move the bar to `done` updates (or environment steps)."""
        if loss is not None:
            self._loss = f"loss {loss:.4f}"
        self._bar.update(self._task, completed=done, note=f"{self._loss} {self._score}".strip())
        if self._bar.disable and self._clock() - self._last_line >= LINE_SECONDS:
            self._line(done)

    def say(self, text: str) -> None:
        """Print a line of its own, above the bar where there is one."""
        self._console.print(f"{self._title}: {text}", soft_wrap=True, highlight=False)

    def _line(self, done: int) -> None:
        """Print the progress; the time left is estimated from the speed of this process."""
        self._last_line = self._clock()
        elapsed, finished = self._last_line - self._started[0], done - self._started[1]
        parts = [f"{self._unit} {done}/{self._total}", f"{self._loss} {self._score}".strip()]
        if finished and done < self._total:
            left = duration(elapsed / finished * (self._total - done))
            parts.append(f"{left} left")
        self.say(", ".join(part for part in parts if part))

    def evaluated(self, done: int, score: float, spread: float) -> None:
        """Show an evaluation's score; a line of its own where there is no bar."""
        self._score = f"score {score:.1f} ± {spread:.1f}"
        if self._bar.disable:
            self._line(done)
        self.update(done)

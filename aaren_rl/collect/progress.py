"""How a collection shows itself while it works: bars on a terminal, plain lines elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)

from aaren_rl.data.trajectory import Trajectory


class Bar(Progress):
    """Steps done of steps in all, on standard error; use it as a context.

    Args:
        title: what is going on.
        total: steps in all; None where nobody knows.
        done: steps done before.
    """

    def __init__(self, title: str, total: int | None, done: int = 0) -> None:
        console = Console(stderr=True)
        super().__init__(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[note]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.title = title
        self._task = self.add_task(title, total=total, completed=done, note="")

    def step(self, done: int) -> None:
        """Move the bar to `done` steps."""
        self.update(self._task, completed=done)

    def note(self, text: str) -> None:
        """Say something: beside the bar, or in a line where there is none."""
        self.update(self._task, note=text)
        if self.disable:
            self.say(f"{self.title}: {text}")

    def say(self, line: str) -> None:
        """Print a whole line, unbroken."""
        self.console.print(line, soft_wrap=True, highlight=False, markup=False)


def counted(episodes: Iterable[Trajectory], title: str, total: int | None) -> Iterator[Trajectory]:
    """The same episodes, with a bar of their steps."""
    done = number = 0
    with Bar(title, total) as bar:
        for episode in episodes:
            yield episode
            done, number = done + len(episode.rewards), number + 1
            bar.step(done)
        bar.note(f"{done} steps, {number} episodes")

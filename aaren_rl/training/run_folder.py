"""The folder of a training run: the one place that knows the names of its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from aaren_rl.files import locked, make_folder, recover_folder

CONFIG_FILE, SUMMARY_FILE, METRICS_FILE = "config.json", "summary.json", "metrics.csv"
LAST, BEST, KEPT_AGENTS = "last", "best", "agents"
LOCK_FILE = ".training.lock"


@dataclass(frozen=True)
class RunFolder:
    """Where a run keeps what.

    TensorBoard's events lie in the folder itself, under names that TensorBoard chooses.

    Attributes:
        path: the folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """What the run was told."""
        return self.path / CONFIG_FILE

    @property
    def summary(self) -> Path:
        """What came of it; there once the run has finished."""
        return self.path / SUMMARY_FILE

    @property
    def last(self) -> Path:
        """The checkpoint that training goes on from."""
        return self.path / LAST

    @property
    def best(self) -> Path:
        """The agent of the evaluation with the highest score."""
        return self.path / BEST

    @property
    def lock(self) -> Path:
        """Held by the process that trains here."""
        return self.path / LOCK_FILE

    def kept(self, update: int) -> Path:
        """The agent of an evaluation that was kept, see `TrainSettings.keep_evaluated`."""
        return self.path / KEPT_AGENTS / f"update-{update}"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is something to go on from."""
        return recover_folder(self.last).is_dir()

    @contextmanager
    def claimed(self) -> Iterator[None]:
        """Make the folder and keep other processes out of it.

        Raises:
            UserError: it cannot be written, or another process is training there.
        """
        make_folder(self.path)
        with locked(self.lock, f"--out {self.path}: another process is training there"):
            try:
                yield
            finally:
                self.lock.unlink(missing_ok=True)  # before another process can hold it

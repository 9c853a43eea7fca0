"""The folder of a training run: the one place that knows the names of its files."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aaren_rl.files import (
    check_replaceable,
    locked,
    make_folder,
    recover_folder,
    write_bytes,
    write_json,
)

CONFIG_FILE, SUMMARY_FILE, METRICS_FILE = "config.json", "summary.json", "metrics.csv"


class RunFolder:
    """Paths in a run's folder. TensorBoard's event files are in the folder itself.

    Attributes:
        path: the folder, absolute, since an environment may change the working directory.
        config: all settings.
        summary: all results; exists once the run has finished.
        last: the checkpoint that a resumed run starts from.
        best: the agent of the evaluation with the highest score.
        online: the settings of `aaren-rl finetune`, in a run of it.
        lock: held by the process that trains here.
    """

    def __init__(self, path: Path) -> None:
        self.path = path = path.absolute()
        self.config, self.summary = path / CONFIG_FILE, path / SUMMARY_FILE
        self.online, self.lock = path / "finetune.json", path / ".training.lock"
        self.last, self.best = path / "last", path / "best"
        self._settings: dict[Path, bytes] = {}

    def kept(self, update: int) -> Path:
        """The agent of an evaluation that was kept, see `TrainSettings.keep_evaluated`."""
        return self.path / "agents" / f"update-{update}"

    @property
    def has_checkpoint(self) -> bool:
        """Whether there is a checkpoint to resume from."""
        return recover_folder(self.last).is_dir()

    def begin(self, config: dict[str, Any]) -> None:
        """Write the config of a training that begins or goes on; results of before are removed.

        Raises:
            UserError: a checkpoint that is there cannot be replaced.
        """
        for checkpoint in (self.last, self.best):
            check_replaceable(checkpoint)
        write_json(self.config, config)
        self.summary.unlink(missing_ok=True)
        files = [file for file in (self.config, self.online) if file.exists()]
        self._settings = {file: file.read_bytes() for file in files}

    def restore_settings(self) -> None:
        """Write the settings again if they are gone: a checkpoint without them is not resumed."""
        for file, content in self._settings.items():
            if not file.exists():
                write_bytes(file, content)

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

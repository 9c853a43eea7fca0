"""Event files in the order in which they were begun."""

from __future__ import annotations

import pytest
from tensorboard.summary.writer import event_file_writer


@pytest.fixture(scope="session", autouse=True)
def _event_files_sort_by_name() -> None:
    """TensorBoard reads a run's files by name: time in seconds, process, number in the process.

    Runs that are stopped and resumed within one second of one process would come in the wrong
    order when that number grows from 9 to 10. Real ones take longer to start.
    """
    event_file_writer._global_uid = event_file_writer.AtomicCounter(100_000)

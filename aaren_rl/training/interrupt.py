"""Ctrl-C and SIGTERM as a request to finish the update, save, and stop."""

from __future__ import annotations

import signal
import threading
from types import FrameType


class Interrupted(Exception):
    """The run was asked to stop; everything up to `update` is saved."""

    def __init__(self, update: int) -> None:
        super().__init__(f"stopped after update {update}")
        self.update = update


class StopRequest:
    """Inside this context the first Ctrl-C or SIGTERM only sets `requested`; a second one kills.

    Callbacks set `ending`: end as at the last update.
    """

    def __init__(self) -> None:
        self.requested = self.ending = False
        self._before: dict[int, object] = {}

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.requested:
            raise KeyboardInterrupt
        self.requested = True

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

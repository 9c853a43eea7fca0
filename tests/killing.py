"""Work in a child process that is killed at some moment."""

from __future__ import annotations

import os
import signal
import traceback
from collections.abc import Callable
from functools import partial

Ended = Callable[[], bool]
"""Whether a child has ended by itself."""


def never(_: Ended) -> bool:
    """The moment of no kill."""
    return False


def attempt(work: Callable[[], object], moment: Callable[[Ended], bool] = never) -> bool:
    """Fork, work, and be killed; the fork of a process that has imported everything starts at once.

    Args:
        work: done in the child.
        moment: called while the child works; returns when it is to be killed, with `True`, or at
            once with `False` when it is to be left alone.

    Returns:
        Whether the work was done.
    """
    child = os.fork()
    if child == 0:
        _work(work)
    if moment(partial(_ended, child)):
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    code = os.waitstatus_to_exitcode(status)
    assert code in (0, -signal.SIGKILL), code
    return code == 0


def _work(work: Callable[[], object]) -> None:
    """In the child; never returns."""
    code = 1
    try:
        work()
        code = 0
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def _ended(child: int) -> bool:
    return os.waitid(os.P_PID, child, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None

"""Work in a process of its own, forked from this one.

A Python that imports PyTorch and Gymnasium starts in seconds, a fork of one that has them at once.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import traceback
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path


def forked(work: Callable[[], object], folder: Path) -> subprocess.CompletedProcess[str]:
    """Do `work` in a child in `folder`; gives its exit code and what it printed."""
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        child = os.fork()
        if child == 0:
            _work(work, folder, (output.fileno(), errors.fileno()))
        _, status = os.waitpid(child, 0)
        for file in (output, errors):
            file.seek(0)
        code = os.waitstatus_to_exitcode(status)
        return subprocess.CompletedProcess("forked", code, output.read(), errors.read())


def forked_code(
    code: str, *arguments: str, folder: Path, path: Sequence[str] = ()
) -> subprocess.CompletedProcess[str]:
    """Run code as `python -c` does, with more places to import from."""

    def work() -> None:
        sys.argv = ["-c", *arguments]
        sys.path[:] = [*path, *filter(None, sys.path)]
        exec(code, {"__name__": "__main__"})

    return forked(work, folder)


def _tell_as_without_pytest() -> None:
    """Log records and warnings go to standard error again."""
    logging.getLogger().handlers.clear()
    warnings.simplefilter("default")
    for kind in (DeprecationWarning, PendingDeprecationWarning, ImportWarning, ResourceWarning):
        warnings.simplefilter("ignore", kind)
    warnings.showwarning = lambda message, category, filename, lineno, file=None, line=None: print(
        warnings.formatwarning(message, category, filename, lineno, line), end="", file=sys.stderr
    )


def _work(work: Callable[[], object], folder: Path, files: Sequence[int]) -> None:
    """In the child; never returns."""
    code = 1
    try:
        os.chdir(folder)
        for stream, file in enumerate(files, 1):
            os.dup2(file, stream)
        sys.stdout, sys.stderr = (os.fdopen(number, "w", closefd=False) for number in (1, 2))
        _tell_as_without_pytest()
        work()
        code = 0
    except SystemExit as stop:
        code = stop.code if isinstance(stop.code, int) else int(stop.code is not None)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)

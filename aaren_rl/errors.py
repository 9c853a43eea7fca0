"""The one error that a user's mistake raises."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class UserError(ValueError):
    """Something that the caller gave does not fit: a file, a field, a shape or a flag.

    The message is one line that names the thing and what was expected. The command line prints
    it and exits with code 2; a program can catch it as a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


FAILURES = (Exception, SystemExit)
"""What other people's environments raise, some of them to end the process."""


def system_error(error: OSError, place: object = None) -> UserError:
    """What the operating system refused, such as writing to a full disk, as a user's error.

    Args:
        error: its exception.
        place: what it was about, where the exception does not name a file.
    """
    where = error.filename or place
    reason = error.strerror or one_line(error)
    return UserError(reason if where is None else f"{where}: {reason}")


def one_line(error: BaseException) -> str:
    """What another library's exception says, as one line."""
    if isinstance(error, SystemExit) and not isinstance(error.code, str):  # a number says nothing
        return f"it ended the program (exit code {error.code})"
    return " ".join(str(error).split()) or type(error).__name__


def unknown(kind: str, name: object, known: Iterable[str]) -> str:
    """The message for an unknown name, with the closest known one and all of them."""
    names = sorted(known)
    near = difflib.get_close_matches(str(name), names, n=1)
    hint = f"; did you mean {near[0]}?" if near else "."
    return f"unknown {kind} {name!r}{hint} Known: {', '.join(names)}"

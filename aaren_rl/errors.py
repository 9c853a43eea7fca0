"""The one error that a user's mistake raises."""


class UserError(ValueError):
    """Something that the caller gave does not fit: a file, a field, a shape or a flag.

    The message is one line that names the thing and what was expected. The command line prints
    it and exits with code 2; a program can catch it as a `ValueError`.
    """

    def __init__(self, message: str) -> None:
        super().__init__(" ".join(message.split()))


def one_line(error: BaseException) -> str:
    """What another library's exception says, as one line."""
    return " ".join(str(error).split()) or type(error).__name__

"""Data sources by name: each recognises its datasets by their names, and opens them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from aaren_rl.registry import Registry

Reader = Callable[..., Any]
"""A function of a name or path (`str`), and of its options as keywords.

It returns a `Recording`, or a `TrajectoryDataset` that it has read, or None for a name that is not
its own; `UserError` for one that is its own and cannot be opened.
"""

SOURCES: Registry[Reader] = Registry("data source")


def register_source(name: str, reader: Reader, options: type | None = None) -> Reader:
    """Add a data source, which `load_dataset` then asks before those that are there already.

        >>> def zeros(name):
        ...     if not name.startswith("zeros:"):
        ...         return None
        ...     steps = int(name.removeprefix("zeros:"))
        ...     columns = np.zeros((steps, 2)), np.zeros((steps, 1)), np.zeros(steps)
        ...     return arl.TrajectoryDataset.from_arrays(*columns, np.arange(steps) == steps - 1)
        >>> _ = arl.register_source("zeros", zeros)
        >>> arl.load_dataset("zeros:5").num_steps
        5

    Args:
        name: how errors and `load_dataset(..., source=)` call it, in lower case with hyphens.
        reader: see `Reader`.
        options: a dataclass of its settings, each with a default; `load_dataset` takes its fields
            as keywords, and calls `reader(name, **options)`.

    Returns:
        The reader.

    Raises:
        UserError: the name belongs to another source.
    """
    return SOURCES.register(name, reader, options=options)

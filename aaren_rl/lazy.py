"""Packages whose names are imported when they are first used (PEP 562).

Importing PyTorch takes seconds, and `import aaren_rl` or `aaren-rl train --help` do not need it. A
lazy package writes its imports below `if TYPE_CHECKING:`, where type checkers and documentation
tools read them; at run time `lazy_exports` executes each when its name is first used:

    if TYPE_CHECKING:
        from aaren_rl.training.run import train

    __all__ = ["train"]
    __getattr__, __dir__ = lazy_exports(__name__, __all__)
"""

from __future__ import annotations

import ast
import inspect
import sys
from collections.abc import Callable, Sequence
from functools import cache
from importlib import import_module
from typing import Any


def lazy_exports(
    package: str, names: Sequence[str]
) -> tuple[Callable[[str], Any], Callable[[], list[str]]]:
    """The `__getattr__` and the `__dir__` of a package whose imports only type checkers run."""

    @cache
    def origins() -> dict[str, str]:
        """Module of each name, read from the package's own `from MODULE import NAME` lines."""
        tree = ast.parse(inspect.getsource(sys.modules[package]))
        imports = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        return {name.name: str(node.module) for node in imports for name in node.names}

    def getattr_(name: str) -> Any:
        if name not in names:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        value = getattr(import_module(origins()[name]), name)
        setattr(sys.modules[package], name, value)  # found directly from now on
        return value

    return getattr_, lambda: sorted(names)

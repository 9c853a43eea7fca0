"""Doctests in docstrings become code blocks of the site."""

from __future__ import annotations

import re
from typing import Any

import griffe

DOCTEST = re.compile(r"^>>> .*(?:\n(?!\n).*)*", re.MULTILINE)


class FencedDoctests(griffe.Extension):
    """Puts a fence around each doctest."""

    def on_object(self, *, obj: Any, **_: Any) -> None:
        """Change an object's docstring once it is loaded."""
        if obj.docstring is not None:
            fenced = DOCTEST.sub(lambda found: f"```pycon\n{found[0]}\n```", obj.docstring.value)
            obj.docstring.value = fenced

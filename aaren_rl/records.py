"""Typed records: dataclasses whose fields are checked against their annotations."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any, TypeVar, get_type_hints

import msgspec

from aaren_rl.errors import UserError

T = TypeVar("T")


def typed(record: T, where: str) -> T:
    """The dataclass with each field as its annotation says: lists as tuples, text as paths.

    Args:
        record: a dataclass instance; dataclasses in its fields are checked likewise.
        where: what error messages begin with, such as the file that it was read from.

    Raises:
        UserError: for a value of another type; names `where` and the field.
    """
    hints = get_type_hints(type(record))
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        value = getattr(record, field.name)
        if dataclasses.is_dataclass(value) and not isinstance(value, type):
            fields[field.name] = typed(value, where)
            continue
        try:
            fields[field.name] = msgspec.convert(value, hints[field.name], dec_hook=_custom)
        except msgspec.ValidationError as error:
            raise UserError(f"{where}: {field.name}: {error}, got {value!r}") from None
    return dataclasses.replace(record, **fields)  # type: ignore[type-var]


def _custom(kind: type, value: Any) -> Any:
    """Types that JSON does not have."""
    if kind is Path and isinstance(value, (str, Path)):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `{kind.__name__}`")


def finite(content: Any) -> Any:
    """JSON values with null in the place of NaN and infinities, which JSON does not have."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return content

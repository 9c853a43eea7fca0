"""Typed records: dataclasses from YAML, JSON or keywords, checked against their annotations."""

from __future__ import annotations

import dataclasses
import json
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar, get_args, get_origin, get_type_hints

import msgspec
import yaml

from aaren_rl.errors import UserError, one_line, unknown
from aaren_rl.files import read_bytes

T = TypeVar("T")


class _Loader(yaml.SafeLoader):
    """Plain values; a duplicate key is an error; 1e-3 is a number, as in YAML 1.2."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} twice", node.start_mark)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)
_FLOAT = re.compile(r"[-+]?\d+(\.\d*)?[eE][-+]?\d+$")
_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789"))


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file; `UserError` names the file and the line."""
    content = read_bytes(file)
    try:
        return yaml.load(content, Loader=_Loader)  # a safe one
    except (ValueError, RecursionError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not readable as YAML ({error})") from None


def decode(kind: type[T], content: Any, where: str) -> T:
    """A dataclass from a mapping of the plain values of YAML or JSON.

    `UserError` for a field that is unknown, missing or of another type begins with `where` and
    names the field.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: expected fields, got {content!r}")
    known = [field.name for field in dataclasses.fields(kind)]  # type: ignore[arg-type]
    for name in content:
        if name not in known:
            raise UserError(f"{where}: {unknown('field', name, known)}")
    found: T = convert(content, kind, where)
    return found


def typed(record: T, where: str) -> T:
    """The dataclass, and those in its fields, with each field in its annotated type.

    Text becomes a path where one is meant, and NumPy's numbers Python's.
    """
    hints = get_type_hints(type(record))
    fields: dict[str, Any] = {}
    for field in dataclasses.fields(record):  # type: ignore[arg-type]
        value, place = _pythonic(getattr(record, field.name)), f"{where}: {field.name}"
        inner = dataclasses.is_dataclass(value) and not isinstance(value, type)
        fields[field.name] = (
            typed(value, where) if inner else convert(value, hints[field.name], place, strict=True)
        )
    return dataclasses.replace(record, **fields)  # type: ignore[type-var]


def convert(value: Any, kind: Any, where: str, *, strict: bool = False) -> Any:
    """A value of YAML, JSON or Python in the type of an annotation: lists as tuples, text as paths.

    Unless `strict`, a text such as `inf` may stand for a number. `UserError` for a value of another
    type begins with `where`, and names the place and what was expected.
    """
    try:
        strict = strict or not isinstance(value, str)
        return msgspec.convert(value, kind, strict=strict, dec_hook=_custom)
    except msgspec.ValidationError as error:
        message, _, path = one_line(error).replace("`", "").partition(" - at $")
        place = f"{path.lstrip('.')}: " if path else ""
        if message.startswith("Invalid enum value") and not place:
            message = f"expected one of {', '.join(map(str, _choices(kind)))}, got {value!r}"
        raise UserError(f"{where}: {place}{message[0].lower()}{message[1:]}") from None


def _pythonic(value: Any) -> Any:
    """The value with NumPy's numbers and arrays, also in dictionaries and lists, as Python's."""
    if hasattr(value, "tolist"):
        return value.tolist()
    if isinstance(value, dict):
        return {name: _pythonic(each) for name, each in value.items()}
    return [_pythonic(each) for each in value] if isinstance(value, (list, tuple)) else value


def _custom(kind: type, value: Any) -> Any:
    """Types that JSON lacks: paths, written as text, and instances that are there already."""
    if kind is Path and isinstance(value, str):
        return Path(value)
    if isinstance(value, get_origin(kind) or kind):
        return value
    raise msgspec.ValidationError(f"Expected `{kind.__name__}`")


def _choices(kind: Any) -> list[Any]:
    inner = list(get_args(kind))
    return inner if get_origin(kind) is Literal else [c for each in inner for c in _choices(each)]


def plain(record: Any) -> Any:
    """A dataclass as JSON values: tuples as lists, paths as text; infinities and NaN stay."""
    return json.loads(json.dumps(dataclasses.asdict(record), default=str))


def finite(content: Any) -> Any:
    """JSON values with null in the place of NaN and infinities, which JSON does not have."""
    if isinstance(content, float):
        return content if math.isfinite(content) else None
    if isinstance(content, dict):
        return {name: finite(value) for name, value in content.items()}
    if isinstance(content, (list, tuple)):
        return [finite(value) for value in content]
    return content


def flag(name: str) -> str:
    """A setting as the command line calls it."""
    return "--" + name.replace("_", "-")


def differences(before: Mapping[str, Any], now: Mapping[str, Any], *but: str) -> str:
    """The settings in which two runs differ, but for some, as `--seed 0 there, 1 here; ...`."""
    return "; ".join(
        f"{flag(name)} {before.get(name)} there, {now.get(name)} here"
        for name in sorted((before.keys() | now.keys()) - set(but))
        if before.get(name) != now.get(name)
    )


def require(config: object, name: str, holds: bool, words: str) -> None:
    """Raise `UserError` unless a setting's value can work; it names flag, rule and value."""
    if not holds:
        raise UserError(f"{flag(name)} {words}, got {getattr(config, name)}")


def check_counts(config: object, *names: str) -> None:
    """Raise `UserError` unless these settings are at least 1, or `None`; names the flag."""
    for name in names:
        value = getattr(config, name)
        require(config, name, value is None or value >= 1, "must be at least 1")

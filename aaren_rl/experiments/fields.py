"""Values read from a YAML or JSON file, checked against the types that a dataclass gives them."""

from __future__ import annotations

import dataclasses
import types
from pathlib import Path
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

import yaml

from aaren_rl.errors import UserError

C = TypeVar("C")


class _Loader(yaml.SafeLoader):
    """Plain values only, and no key twice: YAML's own loader silently keeps the last."""


def _mapping(loader: _Loader, node: yaml.MappingNode) -> dict[Any, Any]:
    names = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = [name for name in names if names.count(name) > 1]
    if twice:
        raise yaml.constructor.ConstructorError(None, None, f"{twice[0]} twice", node.start_mark)
    return dict(loader.construct_pairs(node, deep=True))


_Loader.add_constructor("tag:yaml.org,2002:map", _mapping)


def read_yaml(file: Path) -> Any:
    """The plain values in a YAML file.

    Raises:
        UserError: when it is missing or not YAML of plain values; names the file and the line.
    """
    try:
        return yaml.load(file.read_text(), Loader=_Loader)  # a safe one
    except FileNotFoundError:
        raise UserError(f"{file}: no such file") from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file}: not readable as YAML ({error})") from None


def build(kind: type[C], content: Any, where: str) -> C:
    """A dataclass from a mapping, every field checked; nested dataclasses likewise.

    Args:
        kind: the dataclass.
        content: what was read.
        where: file and field, for messages.

    Raises:
        UserError: for a field that is unknown, missing or of another type; names it.
    """
    if not isinstance(content, dict):
        raise UserError(f"{where}: fields expected, got {content!r}")
    hints = get_type_hints(kind)
    fields = dataclasses.fields(kind)  # type: ignore[arg-type]
    unknown = [name for name in content if name not in hints]
    if unknown:
        names = ", ".join(field.name for field in fields)
        raise UserError(f"{where}: unknown field {unknown[0]!r}; {names} expected")
    for field in fields:
        plain = field.default is dataclasses.MISSING
        if plain and field.default_factory is dataclasses.MISSING and field.name not in content:
            raise UserError(f"{where}: the field {field.name!r} is missing")
    return kind(**{n: checked(v, hints[n], f"{where}: {n}") for n, v in content.items()})


def checked(value: Any, kind: Any, where: str) -> Any:
    """A value as `kind` asks for it; lists become tuples, and text such as 1e-3 a number.

    Raises:
        UserError: when it is of another type; names the place and what was expected.
    """
    origin, inner = get_origin(kind), get_args(kind)
    if dataclasses.is_dataclass(kind):
        return build(kind, value, where)  # type: ignore[arg-type]
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise UserError(f"{where}: a list expected, got {value!r}")
        return tuple(checked(each, inner[0], f"{where}[{i}]") for i, each in enumerate(value))
    if origin is dict:
        if not isinstance(value, dict):
            raise UserError(f"{where}: fields expected, got {value!r}")
        return {
            checked(k, inner[0], where): checked(v, inner[1], f"{where}: {k}")
            for k, v in value.items()
        }
    if origin in (Union, types.UnionType):
        return _one_of(value, inner, where)
    if origin is Literal:
        if value not in inner:
            raise UserError(f"{where}: one of {', '.join(map(str, inner))} expected, got {value!r}")
        return value
    return _plain(value, kind, where)


def _one_of(value: Any, kinds: tuple[Any, ...], where: str) -> Any:
    if value is None and type(None) in kinds:
        return None
    others = [kind for kind in kinds if kind is not type(None)]
    for kind in others[:-1]:
        try:
            return checked(value, kind, where)
        except UserError:
            continue
    return checked(value, others[-1], where)


def _plain(value: Any, kind: Any, where: str) -> Any:
    if kind is Any:
        return value
    if kind is float and isinstance(value, (int, float, str)) and not isinstance(value, bool):
        try:
            return float(value)  # YAML reads 1e-3 (without a point) as text
        except ValueError:
            pass
    elif isinstance(value, kind) and not (kind is int and isinstance(value, bool)):
        return value
    names = {int: "a whole number", float: "a number", str: "text", bool: "true or false"}
    raise UserError(f"{where}: {names[kind]} expected, got {value!r}")

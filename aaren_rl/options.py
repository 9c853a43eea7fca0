"""Config dataclasses as command-line options: groups, aliases, and errors in one line.

tyro makes the options from a dataclass derived from the config: the same fields, with those in the
config's `GROUPS` in boxes of their own below the others. `parse` puts the values into the config.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import inspect
import io
import itertools
import re
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Annotated, Any, TypeVar, get_origin, get_type_hints

import docstring_parser
import tyro

from aaren_rl.errors import UserError
from aaren_rl.registry import REGISTRIES

C = TypeVar("C")
Option = tuple[str, Any, Any]
"""Name, annotation and default, as `dataclasses.make_dataclass` takes them."""
CHOICES = {
    "agent": "agent",
    "agents": "agent",
    "mixer": "mixer",
    "encoder": "encoder",
    "head": "action head",
    "loggers": "logger",
    "dataset": "data source",
}
"""Fields that name something registered, and the name of its registry."""
LATE = {"encoder": "aaren_rl.layers.encoders", "head": "aaren_rl.layers.heads"}
"""Modules that register what comes with this package; imported when a name is given."""


class Box:
    """Base of the derived dataclasses that hold one box of options."""

    config: Callable[..., Any] | None = None
    """Makes one field of the config from them; `None` when each is a field."""


def parse(
    kind: type[C],
    words: Sequence[str],
    *,
    prog: str,
    default: C | None = None,
    chosen: Mapping[str, str] | None = None,
) -> C:
    """Read a config from the words behind a command.

    Args:
        kind: a dataclass; its optional `GROUPS` maps titles to tuples of fields' names. A field
            that is a dataclass itself is a group of its own.
        words: the command line behind the command's name.
        prog: the command, for the help.
        default: where options that are not given are taken from; by default the config's defaults.
        chosen: the `mixer`, `encoder`, `head` and `agent` by name. What is registered under it may
            have options of its own, such as `--mixer-options.keep`.

    Raises:
        UserError: for options that do not fit, in one line.
    """
    options, messages = options_of(kind, default, chosen or {}), io.StringIO()
    values: Any
    try:
        with contextlib.redirect_stderr(messages):
            values = tyro.cli(
                options,
                args=list(words),
                prog=prog,
                description=inspect.getdoc(kind),
                config=(tyro.conf.DisallowNone,),
            )
    except SystemExit as stop:
        if not stop.code:  # after --help
            raise
        raise UserError(f"{in_one_line(messages.getvalue())}; see {prog} --help") from None
    given = fields_of(values)
    return kind(**given) if default is None else dataclasses.replace(default, **given)  # type: ignore[type-var]


def options_of(kind: type, default: Any = None, chosen: Mapping[str, str] | None = None) -> type:
    """The dataclass that tyro makes the options of a config from; arguments as in `parse`."""
    titles = {name: title for title, names in getattr(kind, "GROUPS", {}).items() for name in names}
    hints, helps = get_type_hints(kind, include_extras=True), helps_of(kind)
    groups: dict[str, list[Option]] = {"": [], **{title: [] for title in titles.values()}}
    boxes: list[Option] = []
    for field in dataclasses.fields(kind):
        name, hint = field.name, hints[field.name]
        value = None if default is None else getattr(default, name)
        inner = hint.__origin__ if get_origin(hint) is Annotated else hint
        if name.endswith("_options"):
            boxes += named_box(name, value, chosen or {}, hints)
        elif isinstance(inner, type) and dataclasses.is_dataclass(inner):
            inside = options_of(inner, value, chosen)
            config = inner if value is None else partial(dataclasses.replace, value)
            boxes.append(boxed(name, make_dataclass(name, [], inside, Box, config=config)))
        else:
            option = option_of(field, hint, helps.get(name, ""), default)
            groups[titles.get(name, "")].append(option)
    options = groups.pop("")
    for title, members in groups.items():
        options.append(boxed(title, make_dataclass(title, members, Box)))
    return make_dataclass(kind.__name__, options + boxes)


def option_of(
    field: dataclasses.Field[Any], hint: Any, help: str, default: Any, name: str = ""
) -> Option:
    """The option of one field of a config, called as the field or by another `name`."""
    names: dict[str, Any] = {"name": name} if name else {}
    registry = REGISTRIES.get(CHOICES.get(field.name, ""))
    if registry is not None and registry.from_plugins():
        help = f"{help} From plug-ins: {', '.join(registry.from_plugins())}."
    positional = tyro.conf.Positional in getattr(hint, "__metadata__", ())
    if field.name in ("env", "environment") and not positional:
        names |= {"name": "env", "aliases": ("--environment",)}
    if field.name == "plugin":  # --plugin a --plugin b, added to those of a resumed run
        hint = Annotated[hint, tyro.conf.UseAppendAction]
    start: Any = {"default": field.default, "default_factory": field.default_factory}
    if default is not None:
        start = {"default_factory": lambda: getattr(default, field.name)}
    option = Annotated[hint, tyro.conf.arg(help=help, **names)]
    return field.name, option, dataclasses.field(**start)


def named_box(
    name: str, given: Any, chosen: Mapping[str, str], settings: Mapping[str, Any]
) -> list[Option]:
    """The own options of the chosen mixer, encoder, head or agent, if it has any.

    Those of this package's mixers are fields of the config already (`settings`).
    """
    kind = name.removesuffix("_options")
    which = chosen.get(kind, "")
    if which not in ("", "linear") and kind in LATE:
        importlib.import_module(LATE[kind])
    registry = REGISTRIES.get(CHOICES.get(kind, kind))
    entry = registry.get(which) if registry is not None else None
    if registry is None or entry is None or entry.options is None:
        return []
    own = {field.name for field in dataclasses.fields(entry.options)}
    if which not in registry.from_plugins() and own <= settings.keys():
        return []
    default = entry.options(**given) if given else None
    hints, helps = get_type_hints(entry.options, include_extras=True), helps_of(entry.options)
    options = []
    for field in dataclasses.fields(entry.options):
        flag = f"{name}.{field.name}".replace("_", "-")
        help = helps.get(field.name, "")
        options.append(option_of(field, hints[field.name], help, default, flag))

    def given_options(**values: Any) -> dict[str, Any]:
        return {name: value for name, value in values.items() if value is not None}

    return [boxed(name, make_dataclass(name, options, Box, config=partial(given_options)))]


def boxed(title: str, box: type) -> Option:
    """Options in a box whose title is no part of their names."""
    return title, Annotated[box, tyro.conf.OmitArgPrefixes], dataclasses.field(default_factory=box)


def make_dataclass(name: str, options: list[Option], *bases: type, **namespace: Any) -> type:
    """A dataclass of these options, in any order and without a docstring for the help."""
    return dataclasses.make_dataclass(
        name, options, bases=bases, kw_only=True, namespace={"__doc__": "", **namespace}
    )


def helps_of(kind: type) -> dict[str, str]:
    """The docstrings below the fields of a config and of its bases, each as one line."""
    parsed = [docstring_parser.parse_from_object(base) for base in reversed(kind.__mro__[:-1])]
    return {
        param.arg_name: " ".join((param.description or "").split())
        for docstring in parsed
        for param in docstring.params
    }


def fields_of(values: Any) -> dict[str, Any]:
    """The config's fields from an instance of the dataclass that `options_of` derived from it."""
    given: dict[str, Any] = {}
    for name, value in vars(values).items():
        if not isinstance(value, Box):
            given[name] = value
        elif value.config is None:
            given |= fields_of(value)
        else:
            given[name] = value.config(**fields_of(value))
    return given


def in_one_line(messages: str) -> str:
    """The error in tyro's box: a title, the message, a rule, perhaps a suggestion.

    Without box-drawing characters in the terminal's encoding, a rule of dashes is below the title.
    """
    plain = re.sub(r"\x1b\[[\d;]*m", "", messages)
    lines = [line.strip("│ ") for line in plain.splitlines()]
    below = lines[2:] if lines[1].startswith("---") else lines[1:]
    message = itertools.takewhile(lambda line: not line.startswith(("─", "---")), below)
    found = " ".join(message).rstrip(".")
    close = re.search(r"Perhaps you meant\W+(--[\w.-]+)", plain)
    return f"{found}: did you mean {close[1]}?" if close else found

"""Named things that users can add to: mixers, agents, data sources, encoders and loggers."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, is_dataclass
from importlib.metadata import entry_points
from typing import Any, Generic, TypeVar

from aaren_rl.errors import UserError, one_line, unknown

T = TypeVar("T", bound=Callable[..., Any])
PLUGIN_GROUP = "aaren_rl.plugins"


@dataclass(frozen=True)
class Registered(Generic[T]):
    """One entry of a registry.

    Attributes:
        make: the class or function that makes the thing.
        options: a dataclass with its settings, all with defaults; `None` without any.
        module: the module that registered it, named when a saved agent needs a missing plug-in.
    """

    make: T
    options: type | None
    module: str


class Registry(Mapping[str, Registered[T]]):
    """A mapping from names to what was registered under them."""

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[str, Registered[T]] = {}
        self.derive: Callable[[str], T | None] = lambda name: None
        REGISTRIES.setdefault(kind, self)

    def from_plugins(self) -> dict[str, Registered[T]]:
        """The entries that come from outside this package."""
        return {
            name: entry
            for name, entry in self._entries.items()
            if not entry.module.startswith("aaren_rl.")
        }

    def register(
        self, name: str, make: T, *, options: type | None = None, module: str | None = None
    ) -> T:
        """Add an entry and return `make`; the same one may be registered again under its name.

        `name` is in lower case with hyphens; `options` a dataclass of settings, all with defaults.
        `module` is by default the one that called the `register_*` function that calls this.

        Raises:
            UserError: for a name that belongs to something else, or options that are no dataclass.
        """
        if options is not None and not is_dataclass(options):
            raise UserError(f"{self.kind} {name!r}: options must be a dataclass, got {options!r}")
        known = self._entries.get(name)
        if known is not None and known.make is not make:
            raise UserError(
                f"{self.kind} {name!r} is registered already, by {known.module}; "
                "choose another name"
            )
        module = module or sys._getframe(2).f_globals.get("__name__", "?")
        self._entries[name] = Registered(make, options, module)
        return make

    def __getitem__(self, name: str) -> Registered[T]:
        """The entry of this name; `UserError` for an unknown one lists the known ones."""
        if name not in self:
            raise UserError(self.unknown(name))
        return self._entries[name]

    def __contains__(self, name: object) -> bool:
        if not isinstance(name, str):
            return False
        if name not in self._entries and (made := self.derive(name)) is not None:
            self.register(name, made, module=made.__module__)
        return name in self._entries

    def get(self, name: str, default: Any = None) -> Any:
        """The entry of this name, or `default`."""
        return self._entries.get(name, default)

    def options(self, name: str, given: Mapping[str, Any]) -> dict[str, Any]:
        """All settings of an entry: the given ones, and the registered defaults of the others.

        Raises:
            UserError: for an unknown entry or setting, or a value of another type than the default.
        """
        kind = self[name].options
        if kind is None:
            if given:
                raise UserError(f"{self.kind} {name!r} has no options, got {', '.join(given)}")
            return {}
        defaults, given = vars(kind()), dict(given)
        for key, value in given.items():
            if key not in defaults:
                raise UserError(f"{self.kind} {name!r}: {unknown('option', key, defaults)}")
            wanted = type(defaults[key])
            if wanted is tuple and isinstance(value, list):  # as JSON holds tuples
                given[key] = value = tuple(value)
            fits = isinstance(value, (int, float) if wanted is float else wanted)
            fits &= wanted is bool or not isinstance(value, bool)
            if not fits and defaults[key] is not None:
                raise UserError(
                    f"{self.kind} {name!r}: option {key} must be {wanted.__name__}, got {value!r}"
                )
        return vars(kind(**given))

    def unknown(self, name: object) -> str:
        """The error message for a name that is not registered."""
        hint = "If it comes from a plug-in, install the plug-in or give --plugin MODULE"
        return f"{unknown(self.kind, name, self._entries)}. {hint}"

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)


REGISTRIES: dict[str, Registry[Any]] = {}
"""The registries that were made so far, by kind; importing a room makes its own."""

_loaded_entry_points = False


def load_plugins(modules: Iterable[str] = ()) -> None:
    """Import all installed entry points of the group `aaren_rl.plugins`, once, and `modules`.

    Importing a plug-in runs its `register_*` calls. The working directory is searched too.

    Raises:
        UserError: for a module that is not found or fails to import; names it.
    """
    global _loaded_entry_points
    if not _loaded_entry_points:
        _loaded_entry_points = True
        for point in entry_points(group=PLUGIN_GROUP):
            try:
                loaded = point.load()
            except Exception as error:
                raise UserError(
                    f"plug-in {point.name} ({point.value}): {one_line(error)}"
                ) from error
            if callable(loaded):  # a function that registers; a module registers on import
                loaded()
    for name in modules:
        try:
            import_module(name)
        except UserError:
            raise
        except Exception as error:
            raise UserError(f"--plugin {name}: {one_line(error)}") from error


def import_module(name: str) -> None:
    """Import a module that the user names; it may lie in the working directory."""
    if "" not in sys.path:
        sys.path.append("")  # the working directory, which a console script does not search
    importlib.import_module(name)


def require_plugins(modules: Iterable[str], where: object) -> None:
    """Raise `UserError` for plug-ins that a file asks for and that are not imported already.

    A file that was found may name any module, and importing one runs its code: only what the user
    names, or has installed as an entry point, is imported.
    """
    missing = [name for name in modules if name not in sys.modules]
    if missing:
        flags = " ".join(f"--plugin {name}" for name in dict.fromkeys(missing))
        raise UserError(f"{where}: made with a plug-in that is not loaded; give {flags}")

"""Registries: the things of one kind by name, each with the dataclass of its own fields.

A thing is one frozen dataclass, a subclass of its kind's, such as `ExpertConfig`. It has a `name`,
its fields (`options.option`), what it can do (class variables of the kind) and a builder. Adding
one is its file and one line in the registry, or `REGISTRY.add` in a file of one's own that
`--plugin` names.
"""

import dataclasses
import importlib
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, ClassVar

from jaxmoe.spelling import did_you_mean


class Entry:
    """The configuration of one thing: a dataclass that knows its registry."""

    name: ClassVar[str]
    registry: ClassVar["Registry"]

    def __new__(cls, *args: Any, **fields: Any) -> "Entry":
        """Says what is meant where a kind itself is made, as configurations were before."""
        if hasattr(cls, "name"):
            return super().__new__(cls)
        given = fields.get("name", args[0] if args else None)
        if given in cls.registry:
            now = cls.registry[given].__name__
            raise TypeError(f"{cls.__name__}(name={given!r}, …) is now {now}(…)")
        known = ", ".join(cls.registry)
        raise TypeError(
            f"{cls.__name__} is a kind; expected {cls.registry.title}.make(NAME, …) "
            f"with a name of {known}"
        )


class UnknownEntryError(ValueError):
    """A name that a registry does not have. `what` says which, such as "expert mlp"."""

    def __init__(self, message: str, what: str):
        super().__init__(message)
        self.what = what


class Registry(Mapping[str, type[Entry]]):
    """Dataclasses by name. Those given as `"module:Class"` are imported when they are asked for.

    Attributes:
      kind: what an entry is, for messages, such as "expert".
      title: what the registry is called in code, such as "EXPERTS".
    """

    def __init__(
        self,
        kind: str,
        title: str,
        entries: Mapping[str, str | type[Entry]],
        aliases: Mapping[str, str] = MappingProxyType({}),
    ):
        self.kind, self.title, self._aliases = kind, title, dict(aliases)
        self._entries = dict(entries)

    def __getitem__(self, name: str) -> type[Entry]:
        """Returns the dataclass of an entry; a KeyError where there is none."""
        found = self._entries[name]
        if isinstance(found, str):
            module, _, attribute = found.partition(":")
            found = self._entries[name] = getattr(importlib.import_module(module), attribute)
        return found

    def __iter__(self) -> Iterator[str]:
        return iter(self._entries)

    def __len__(self) -> int:
        return len(self._entries)

    def find(self, name: str, field: str) -> type[Entry]:
        """Returns the dataclass of an entry, whose name may have capitals and hyphens.

        Raises:
          ValueError: there is none; the line has the nearest name.
        """
        spelt = name.lower().replace("-", "_")
        name = name if name in self._entries else self._aliases.get(spelt, spelt)
        if name not in self._entries:
            message = f"{field}: {name!r} is not accepted{did_you_mean(name, self)} All are "
            raise UnknownEntryError(f"{message}{', '.join(self)}", f"{self.kind} {name!r}")
        return self[name]

    def make(self, name: str, **fields: Any) -> Any:
        """Returns the configuration of an entry with these fields.

        Raises:
          ValueError: no such entry, or a field that it does not have.
        """
        kind = self.find(name, f"{self.kind}.name")
        for field in fields:
            if field not in field_names(kind):
                raise ValueError(f"{self.kind}.{field}: {self.unknown_field(kind.name, field)}")
        return kind(**fields)

    def add(self, entry: type[Entry]) -> type[Entry]:
        """Adds a dataclass under its `name` and returns it: a decorator.

        Raises:
          ValueError: another kind's, no name, another entry of that name, or no frozen dataclass.
        """
        if getattr(entry, "registry", None) is not self:
            raise ValueError(f"{entry.__name__}: it is no {self.kind} of {self.title}")
        name = entry.__dict__.get("name")
        if not isinstance(name, str):
            raise ValueError(f'{entry.__name__}: it has no name; expected name = "…"')
        parameters = entry.__dict__.get("__dataclass_params__")
        if parameters is None or not parameters.frozen:
            raise ValueError(f"{name}: {entry.__name__} is not a frozen dataclass")
        other = self._entries.get(name)
        if other is not None and not _is_same(other, entry):
            raise ValueError(f"{name}: {self.title} has an entry of that name already")
        self._entries[name] = entry
        return entry

    def unknown_field(self, name: str, field: str) -> str:
        """Returns what to say of a field that an entry does not have: whose it is, or the next."""
        owners = [other for other in self if field in field_names(self[other])]
        if owners:
            return f"{name} has no such field; {', '.join(owners)} {_have(owners)}"
        return f"no such field of {name}{did_you_mean(field, field_names(self[name]))}"


def switch(config: Any, name: str, field: str) -> Any:
    """Returns another entry's configuration with the fields that both have.

    Raises:
      ValueError: there is no such entry.
    """
    kind = type(config).registry.find(name, field)
    if kind is type(config):
        return config
    shared = set(field_names(kind)) & set(field_names(type(config)))
    return kind(**{each: getattr(config, each) for each in shared})


def with_fields(config: Any, fields: Mapping[str, Any]) -> Any:
    """Returns a configuration with these fields; `name` makes it another entry's.

    Raises:
      ValueError: no such entry, or a field that it does not have.
    """
    given, registry = dict(fields), type(config).registry
    config = switch(config, given.pop("name", config.name), f"{registry.kind}.name")
    for name in given:
        if name not in field_names(type(config)):
            said = registry.unknown_field(config.name, name)
            raise ValueError(f"{registry.kind}.{name}: {said}")
    return dataclasses.replace(config, **given)


def field_names(kind: type) -> tuple[str, ...]:
    """Returns the names of a dataclass's fields."""
    return tuple(field.name for field in dataclasses.fields(kind))


def _have(owners: list[str]) -> str:
    return "has it" if len(owners) == 1 else "have it"


def _is_same(other: str | type, entry: type) -> bool:
    """Says if two are one class, which a file that is read twice defines twice."""
    if isinstance(other, str):
        return other == f"{entry.__module__}:{entry.__qualname__}"
    return (other.__module__, other.__qualname__) == (entry.__module__, entry.__qualname__)

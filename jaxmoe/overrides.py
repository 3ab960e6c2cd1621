"""Overrides from the command line: `--section.field value …`, typed by the config's dataclasses.

`--section NAME` picks another entry of the section's registry, with fields of its own.

Names are the config's own, in kebab-case or snake_case; tuples take several values; a number may be
a fraction, `8/255`; `none` is None. Every error is one line with the field, the value and what is
accepted.
"""

import dataclasses
import difflib
import os
import re
import types
import typing
from collections.abc import Iterable, Sequence
from dataclasses import fields
from typing import Any, Literal, NamedTuple, TypeVar

from jaxmoe.registry import Entry, field_names, switch

Config = TypeVar("Config")


class Field(NamedTuple):
    """One field of a config, for a help text."""

    name: str  # as on the command line, `optimizer.learning-rate`
    value: Any
    accepted: str
    help: str


def apply_overrides(config: Config, arguments: Sequence[str]) -> Config:
    """`config`, a dataclass of dataclasses, with the fields that `arguments` name replaced.

    Raises:
      ValueError: an unknown field, a value of the wrong type, or one that its section refuses.
    """
    given = [(name.replace("-", "_"), values) for name, values in _split(arguments)]
    sections = {section.name: getattr(config, section.name) for section in fields(config)}
    for name, values in given:  # which entry comes first: it decides which fields there are
        section = name.removesuffix(".name")
        if isinstance(sections.get(section), Entry):
            sections[section] = switch(sections[section], _one(name, values), section)
    renamed, changes = getattr(config, "renamed", {}), {}
    for name, values in given:
        section, _, field = name.partition(".")
        if isinstance(sections.get(section), Entry) and field in ("", "name"):
            continue
        if name in renamed:
            raise ValueError(f"{_dashed(name)}: it is called {_dashed(renamed[name])} now")
        kind = _kind_of(sections, section, field)
        changes.setdefault(section, {})[field] = _convert(name, values, kind)
    for section, values in changes.items():
        sections[section] = dataclasses.replace(sections[section], **values)
    return dataclasses.replace(config, **sections)


def _one(name: str, values: list[str]) -> str:
    if len(values) != 1:
        raise ValueError(
            f"{name}: {' '.join(values) or 'no value'} is not accepted; expected a name"
        )
    return values[0]


def _kind_of(sections: dict[str, Any], section: str, field: str) -> Any:
    """The type of a field.

    Raises:
      ValueError: there is none; the line names the nearest, or whose it is.
    """
    kinds = field_types(type(sections[section])) if section in sections else {}
    if field in kinds:
        return kinds[field]
    if field and isinstance(sections.get(section), Entry):
        part = sections[section]
        if any(field in field_names(other) for other in part.registry.values()):
            said = part.registry.unknown_field(part.name, field)
            raise ValueError(f"{_dashed(f'{section}.{field}')}: {said}")
    known = [
        f"{name}.{each}" for name, part in sections.items() for each in field_types(type(part))
    ]
    for name, part in sections.items():
        known += [name, f"{name}.name"] if isinstance(part, Entry) else []
    given = f"{section}.{field}" if field else section
    raise ValueError(f"{_dashed(given)}: no such field; did you mean {_nearest(given, known)}?")


def field_types(kind: type) -> dict[str, Any]:
    """The types of a dataclass's fields, by name."""
    hints = typing.get_type_hints(kind)
    return {field.name: hints[field.name] for field in fields(kind)}


def check_types(config: Any) -> None:
    """Refuses values in a config, a dataclass of dataclasses, that are not of their fields' types.

    An integer does for a number. Fields that may be arrays take what they are given: they are for
    code.

    Raises:
      ValueError: one line with the field, its value and what is accepted.
    """
    for section in fields(config):
        part = getattr(config, section.name)
        expected = section.type if isinstance(section.type, type) else type(section.default)
        if not isinstance(part, expected):
            raise ValueError(
                f"{section.name}: {part!r} is not accepted; expected {expected.__name__}(…)"
            )
        check_field_types(section.name, part)


def check_field_types(section: str, part: Any) -> None:
    """Refuses values in one section that are not of their fields' types.

    Raises:
      ValueError: as `check_types`.
    """
    for name, kind in field_types(type(part)).items():
        value = getattr(part, name)
        if not any(_is_of(option, value) for option in _members(kind)):
            accepted = _accepted(kind) + (", in a tuple" if isinstance(value, list) else "")
            raise ValueError(f"{section}.{name}: {value!r} is not accepted; expected {accepted}")


def _is_of(kind: Any, value: Any) -> bool:
    """Returns whether a value is one of a kind that `_members` gives."""
    items = typing.get_args(kind)
    if typing.get_origin(kind) is Literal:
        return any(value == item and type(value) is type(item) for item in items)
    if typing.get_origin(kind) is tuple:
        if not isinstance(value, tuple):
            return False
        if items[-1] is Ellipsis:
            items = items[:1] * len(value)
        return len(items) == len(value) and all(map(_is_of, items, value))
    if kind in (int, float) and isinstance(value, bool):
        return False  # to Python it is an integer
    if kind is float:
        return isinstance(value, int | float)
    if kind is Any:  # an array, for code
        return not isinstance(value, str | bytes | list | tuple | dict | bool | None)
    return not isinstance(kind, type) or isinstance(value, kind)


def _members(kind: Any) -> Sequence[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return [kind]


def list_fields(config: Any, section: str) -> list[Field]:
    """The fields of one section, with their values, accepted types and help."""
    part = getattr(config, section)
    return [
        Field(
            _dashed(f"{section}.{field.name}").removeprefix("--"),
            getattr(part, field.name),
            _accepted(kind),
            field.metadata.get("help", ""),
        )
        for field, kind in zip(fields(part), field_types(type(part)).values(), strict=True)
    ]


def parse_number(text: str) -> float:
    """A number, or a fraction such as `8/255`.

    Raises:
      ValueError: neither.
    """
    above, slash, below = text.partition("/")
    try:
        return float(above) / float(below) if slash else float(text)
    except (ValueError, ZeroDivisionError):
        raise ValueError(f"{text!r} is no number") from None


def split_values(text: str) -> list[str]:
    """The values of an option that takes several: `pgd,tlga-r` as `pgd` and `tlga-r`.

    A path that is there is one value, whatever is in its name.
    """
    if os.path.exists(text):
        return [text]
    return re.split(r"[,\s]+", text.strip(", \t\n")) if text.strip(", \t\n") else []


def _split(arguments: Sequence[str]) -> list[tuple[str, list[str]]]:
    """`--name value …` and `--name=value` as (name, values)."""
    found: list[tuple[str, list[str]]] = []
    for argument in arguments:
        if argument.startswith("--") and len(argument) > 2:
            name, equals, value = argument[2:].partition("=")
            found.append((name, [value] if equals else []))
        elif found:
            found[-1][1].append(argument)
        else:
            raise ValueError(f"{argument!r} is not expected here; expected --section.field value")
    return found


def _nearest(given: str, known: Iterable[str]) -> str:
    """The nearest full name; a field without its section counts as much as one with it."""
    last = given.rpartition(".")[2]

    def likeness(name: str) -> float:
        own = name.rpartition(".")[2]
        match = difflib.SequenceMatcher
        full, alone = match(None, given, name).ratio(), match(None, last, own).ratio()
        return max(full, alone) if "." not in given else full + alone

    return _dashed(max(known, key=likeness))


def _dashed(name: str) -> str:
    return "--" + name.replace("_", "-")


def _convert(field: str, values: list[str], kind: Any) -> Any:
    for option in _options(kind):
        try:
            return _as(option, values)
        except ValueError:
            continue
    shown = " ".join(values) if values else "no value"
    raise ValueError(f"{field}: {shown} is not accepted; expected {_accepted(kind)}")


def _as(kind: Any, values: list[str]) -> Any:
    """`values` as one of the kinds that `_options` gives."""
    if typing.get_origin(kind) is tuple:
        items = typing.get_args(kind)
        values = [one for value in values for one in split_values(value)]
        if not values or (items[-1] is not Ellipsis and len(items) != len(values)):
            raise ValueError
        per_value = items[:1] * len(values) if items[-1] is Ellipsis else items
        return tuple(_as(item, [v]) for item, v in zip(per_value, values, strict=True))
    if kind is bool and not values:
        return True
    (value,) = values  # a ValueError where there is not exactly one
    if typing.get_origin(kind) is Literal:
        return {str(choice): choice for choice in typing.get_args(kind)}[_known(kind, value)]
    if kind is type(None) or kind is bool:
        return {"true": True, "false": False, "none": None}[_known(kind, value.lower())]
    return {int: int, float: parse_number, str: str}[kind](value)


def _known(kind: Any, value: str) -> str:
    choices = {bool: ("true", "false"), type(None): ("none",)}.get(kind) or typing.get_args(kind)
    if value not in map(str, choices):
        raise ValueError
    return value


def _options(kind: Any) -> list[Any]:
    """The kinds that text can be turned into, None first; arrays are for code, not for text."""
    members = [m for m in _members(kind) if m in _PLAIN or typing.get_origin(m)]
    return sorted(members, key=lambda member: member is not type(None))


_PLAIN = {int: "an integer", float: "a number", str: "text", bool: "true or false"}
_PLAIN[type(None)] = "none"


def _accepted(kind: Any) -> str:
    said = []
    for option in reversed(_options(kind)):
        items = typing.get_args(option)
        if typing.get_origin(option) is Literal:
            said.append(f"one of {', '.join(map(str, items))}")
        elif typing.get_origin(option) is tuple:
            count = "one or more of" if items[-1] is Ellipsis else f"{len(items)} of"
            said.append(f"{count}: {_accepted(items[0])}")
        else:
            said.append(_PLAIN[option])
    return " or ".join(said)

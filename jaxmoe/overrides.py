"""Overrides from the command line: `--section.field value …`, typed by the config's dataclasses.

Names are the config's own, in kebab-case or snake_case; tuples take several values; a number may be
a fraction, `8/255`; `none` is None. Every error is one line with the field, the value and what is
accepted.
"""

import dataclasses
import difflib
import inspect
import os
import re
import types
import typing
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, TypeVar

Config = TypeVar("Config")


class Field(NamedTuple):
    """One field of a config, for a help text."""

    name: str  # as on the command line, `optimizer.learning-rate`
    value: Any
    accepted: str
    comment: str


def apply_overrides(config: Config, arguments: Sequence[str]) -> Config:
    """`config`, a dataclass of dataclasses, with the fields that `arguments` name replaced.

    Raises:
      ValueError: an unknown field, a value of the wrong type, or one that its section refuses.
    """
    changes: dict[str, dict[str, Any]] = {}
    types_of = {
        f"{section.name}.{name}": (section.name, name, kind)
        for section in dataclasses.fields(config)
        for name, kind in typing.get_type_hints(type(getattr(config, section.name))).items()
    }
    for given, values in _split(arguments):
        known = types_of.get(given.replace("-", "_"))
        if known is None:
            raise ValueError(f"{given}: no such field; did you mean {_nearest(given, types_of)}?")
        section, name, kind = known
        changes.setdefault(section, {})[name] = _convert(f"{section}.{name}", values, kind)
    sections = {
        section: dataclasses.replace(getattr(config, section), **fields)
        for section, fields in changes.items()
    }
    return dataclasses.replace(config, **sections)


def check_types(config: Any) -> None:
    """Refuses values in a config, a dataclass of dataclasses, that are not of their fields' types.

    An integer does for a number. Fields that may be arrays take what they are given: they are for
    code.

    Raises:
      ValueError: one line with the field, its value and what is accepted.
    """
    for section in dataclasses.fields(config):
        part = getattr(config, section.name)
        expected = section.type if isinstance(section.type, type) else type(section.default)
        if not isinstance(part, expected):
            raise ValueError(
                f"{section.name}: {part!r} is not accepted; expected {expected.__name__}(…)"
            )
        for name, kind in typing.get_type_hints(type(part)).items():
            value = getattr(part, name)
            if not any(_is_of(option, value) for option in _members(kind)):
                accepted = _accepted(kind) + (", in a tuple" if isinstance(value, list) else "")
                raise ValueError(
                    f"{section.name}.{name}: {value!r} is not accepted; expected {accepted}"
                )


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
    return not isinstance(kind, type) or isinstance(value, kind)


def _members(kind: Any) -> Sequence[Any]:
    if typing.get_origin(kind) in (typing.Union, types.UnionType):
        return typing.get_args(kind)
    return [kind]


def list_fields(config: Any, section: str) -> list[Field]:
    """The fields of one section, with their values, accepted types and comments."""
    part = getattr(config, section)
    kinds = typing.get_type_hints(type(part))
    comments = field_comments(type(part))
    return [
        Field(
            f"{section}.{field.name}".replace("_", "-"),
            getattr(part, field.name),
            _accepted(kinds[field.name]),
            comments.get(field.name, ""),
        )
        for field in dataclasses.fields(part)
    ]


def field_comments(kind: type) -> dict[str, str]:
    """What a dataclass says of each field: the comment on its line, or its `Attributes:` entry."""
    listed = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2].partition("\n\n")[0]
    comments = {
        name: " ".join(text.split())
        for name, text in re.findall(r"^  (\w+): ((?:.*\n?)(?:    .*\n?)*)", listed, re.MULTILINE)
    }
    lines = re.findall(r"^    (\w+): .*?  # (.*)$", inspect.getsource(kind), re.MULTILINE)
    return comments | dict(lines)


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


def _nearest(given: str, known: dict[str, Any]) -> str:
    """The nearest full name; a field without its section counts as much as one with it."""
    given = given.replace("-", "_")
    last = given.rpartition(".")[2]

    def likeness(name: str) -> float:
        own = name.rpartition(".")[2]
        match = difflib.SequenceMatcher
        full, alone = match(None, given, name).ratio(), match(None, last, own).ratio()
        return max(full, alone) if "." not in given else full + alone

    return "--" + max(known, key=likeness).replace("_", "-")


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

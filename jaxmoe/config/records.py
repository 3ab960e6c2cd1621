"""Experiments as what JSON can hold, and back: `config.json` of a run."""

import dataclasses
import json
from typing import Any

from jaxmoe.config.experiment import Experiment
from jaxmoe.overrides import check_types
from jaxmoe.plugins import load_recorded
from jaxmoe.registry import Entry, field_names
from jaxmoe.spelling import did_you_mean


def to_dict(experiment: Experiment) -> dict[str, dict[str, Any]]:
    """Returns the experiment as nested dicts that JSON can hold."""
    found = {}
    for section in dataclasses.fields(experiment):
        part = getattr(experiment, section.name)
        name = {"name": part.name} if isinstance(part, Entry) else {}
        found[section.name] = {**name, **dataclasses.asdict(part)}
    return json.loads(json.dumps(found))


def from_dict(values: dict[str, dict[str, Any]]) -> Experiment:
    """Returns the experiment that `to_dict` gave, now or when it had other sections.

    Raises:
      ValueError: a section or field that does not exist, or a value of another type.
      FileNotFoundError: a plugin that is not where it was.
    """
    of_before = "recipe" not in values
    values = _as_now(values)
    load_recorded(values.get("run", {}).get("plugins") or ())
    known = {section.name: section.default for section in dataclasses.fields(Experiment)}
    for name in values:
        if name not in known:
            raise ValueError(f"{name}: no such section{did_you_mean(name, known)}")
    sections = {
        name: _section(name, values.get(name, {}), part, of_before=of_before)
        for name, part in known.items()
    }
    experiment = Experiment(**sections)
    check_types(experiment)
    return experiment


def _section(section: str, given: dict[str, Any], default: Any, *, of_before: bool) -> Any:
    kind, given = type(default), dict(given)
    if isinstance(default, Entry):
        registry = default.registry
        kind = registry.find(given.pop("name", default.name), f"{section}.name")
        others = {name for other in registry for name in field_names(registry[other])}
        if of_before:  # every section had the fields of all its entries
            given = {n: v for n, v in given.items() if n in field_names(kind) or n not in others}
        for name in given.keys() & others - {*field_names(kind)}:
            raise ValueError(f"{section}.{name}: {registry.unknown_field(kind.name, name)}")
    known = field_names(kind)
    for name in given:
        if name not in known:
            raise ValueError(f"{section}.{name}: no such field{did_you_mean(name, known)}")
    return kind(**{n: tuple(v) if isinstance(v, list) else v for n, v in given.items()})


def _as_now(values: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """The values under the names that fields have now."""
    values = {section: dict(fields) for section, fields in values.items()}
    for old, now in Experiment.renamed.items():
        section, _, name = old.partition(".")
        if name in values.get(section, {}):
            place, _, own = now.partition(".")
            values.setdefault(place, {})[own or "name"] = values[section].pop(name)
    # Training kept the best iterate before a record said which.
    values.setdefault("attack", {}).setdefault("iterate", "best")
    return values

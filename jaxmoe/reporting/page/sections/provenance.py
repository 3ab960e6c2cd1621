"""Provenance: which commands, config, versions, seeds and devices the figures are of."""

import dataclasses
import pathlib
import shlex
from typing import Any, NamedTuple

from jaxmoe.reporting.page.gather import RunFiles
from jaxmoe.settings import AttackSettings


class Provenance(NamedTuple):
    """The origin of the figures."""

    again: str  # the command of the evaluation, or of the training
    facts: list[tuple[str, str]]
    commands: list[tuple[str, str]]
    config: list[tuple[str, list[tuple[str, str]]]]  # by section
    settings: list[tuple[str, str]]
    lacks: tuple[str, ...]


def provenance(run: RunFiles) -> Provenance:
    """Returns what a run's folder says of how it was made."""
    processes = run.description.get("processes") or [{}]
    last = processes[-1]
    versions = last.get("versions") or {}
    facts = {
        "folder": str(run.folder),
        "seed of training": run.description.get("seed"),
        "seed of attacks": run.clean.seed,
        "revision": last.get("git_revision"),
        "python": last.get("python"),
        "versions": ", ".join(f"{name} {version}" for name, version in versions.items()),
        "devices": _counted(last.get("devices") or []),
        "checkpoint": run.details.get("checkpoint"),
        "test examples": _test_set(run),
        "splits": _splits(run),
        "processes": len(processes) if len(processes) > 1 else None,
    }
    commands = [("training", command_of(process.get("command"))) for process in processes]
    judged = command_of(run.details.get("command"))
    commands.append(("evaluation", judged))
    return Provenance(
        again=judged or commands[0][1],
        facts=[(name, str(value)) for name, value in facts.items() if value not in (None, "")],
        commands=[(name, text) for name, text in commands if text],
        config=[(name, _fields(fields)) for name, fields in run.config.items()],
        settings=_settings(run.details.get("settings") or {}),
        lacks=run.lacks,
    )


def command_of(arguments: list[str] | None) -> str:
    """Returns a command line that a shell reads as these arguments; nothing without any."""
    if not arguments:
        return ""
    first = pathlib.PurePath(str(arguments[0]))
    ours = first.name in ("jaxmoe", "__main__.py", "__main__") or first.parent.name == "jaxmoe"
    program = "jaxmoe" if ours else str(first)
    return shlex.join([program, *map(str, arguments[1:])])


def _fields(values: Any) -> list[tuple[str, str]]:
    if not isinstance(values, dict):
        return [("", _said(values))]
    return [(str(name), _said(value)) for name, value in values.items()]


def _settings(values: dict[str, Any]) -> list[tuple[str, str]]:
    """Returns the numbers of the attacks, each with what it is, in the words of its option."""
    helps = {field.name: field.metadata["help"] for field in dataclasses.fields(AttackSettings)}
    said = _fields(values)
    return [(name, f"{value} ({helps[name]})" if name in helps else value) for name, value in said]


def _said(value: Any) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(_said, value)) or "none"
    if isinstance(value, float):
        return f"{value:.6g}"
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    return str(value)


def _counted(devices: list[str]) -> str:
    kinds = dict.fromkeys(devices)
    return ", ".join(f"{devices.count(kind)} × {kind}" for kind in kinds)


def _test_set(run: RunFiles) -> str | None:
    found = run.details.get("test_set")
    if isinstance(found, dict):
        return ", ".join(f"{name} {value}" for name, value in found.items())
    return found


def _splits(run: RunFiles) -> str:
    counts = run.description.get("clips") or {}
    return ", ".join(f"{name} {count}" for name, count in counts.items())

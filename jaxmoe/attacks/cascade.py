"""Cascades: attacks one after another, each on what the ones before it left standing. AutoAttack.

A cascade is data, which `evaluation` runs. Source of AutoAttack and of its numbers: Croce & Hein
2020 (https://arxiv.org/abs/2003.01690) and the authors' code, which added `plus` and `rand`.
"""

from types import MappingProxyType
from typing import Any, NamedTuple

CUSTOM = "auto-attack-custom"  # the name of a cascade that an evaluation was given


class Stage(NamedTuple):
    """One attack of a cascade, and the numbers that it has whatever the settings say."""

    attack: str  # a name of ATTACKS
    numbers: MappingProxyType[str, Any] = MappingProxyType({})  # fields of AttackSettings


class Cascade(NamedTuple):
    """Attacks one after another, each on what still stands."""

    title: str  # the paper's name
    stages: tuple[Stage, ...]


def stage(attack: str, **numbers: Any) -> Stage:
    """A stage; `numbers` are fields of `AttackSettings`."""
    return Stage(attack, MappingProxyType(numbers))


def custom(attacks: tuple[str, ...] | list[str]) -> Cascade:
    """A cascade of any attacks, which take the numbers of the evaluation's settings."""
    return Cascade("AutoAttack custom", tuple(stage(attack) for attack in attacks))


CASCADES: dict[str, Cascade] = {
    "auto-attack": Cascade(
        "AutoAttack",
        (
            stage("apgd-ce", steps=100, restarts=1),
            stage("apgd-t", steps=100, restarts=1, targets=9),
            stage("fab-t", steps=100, restarts=1, targets=9),
            stage("square", queries=5000, restarts=1),
        ),
    ),
    "auto-attack-plus": Cascade(
        "AutoAttack+",
        (
            stage("apgd-ce", steps=100, restarts=5),
            stage("apgd-dlr", steps=100, restarts=5),
            stage("fab", steps=100, restarts=5),
            stage("square", queries=5000, restarts=1),
            stage("apgd-t", steps=100, restarts=1, targets=9),
            stage("fab-t", steps=100, restarts=1, targets=9),
        ),
    ),
    "auto-attack-rand": Cascade(
        "AutoAttack rand",
        (
            stage("apgd-ce", steps=100, restarts=1, draws=20),
            stage("apgd-dlr", steps=100, restarts=1, draws=20),
        ),
    ),
}

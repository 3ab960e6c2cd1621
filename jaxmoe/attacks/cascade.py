"""Cascades: attacks one after another, each on what the ones before it left standing. AutoAttack.

A cascade is data, which `evaluation` runs. Source of AutoAttack and of its numbers: Croce & Hein
2020 (https://arxiv.org/abs/2003.01690) and the authors' code, which added `plus` and `rand`.
"""

import dataclasses
from collections.abc import Iterator
from types import MappingProxyType
from typing import Any, NamedTuple

from jaxmoe.attacks.settings import AttackSettings

CUSTOM = "auto-attack-custom"  # the name of a cascade that an evaluation was given
BY_TARGET = ("apgd-t", "fab-t")  # attacks of which every target is an attempt of its own


class Stage(NamedTuple):
    """One attack of a cascade, and the numbers that it has whatever the settings say."""

    attack: str  # a name of ATTACKS
    numbers: MappingProxyType[str, Any] = MappingProxyType({})  # fields of AttackSettings

    def attempts(self, settings: AttackSettings, classes: int) -> Iterator[AttackSettings]:
        """The settings of each attempt on a model of so many classes: a restart at one target."""
        settings = dataclasses.replace(settings, **self.numbers)
        once = dataclasses.replace(settings, restarts=1)
        targets = [once]
        if self.attack in BY_TARGET:
            count = min(settings.targets, classes - 1)
            targets = [dataclasses.replace(once, targets=1, first_target=t) for t in range(count)]
        for target in targets:
            yield from [target] * settings.restarts


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

"""`Study`: many experiments that are compared: defences, architectures, seeds and folds."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxmoe.config.experiment import Experiment

Fields = Mapping[str, Any]
"""Fields of an experiment by their names on a command line: `{"recipe": "at_m"}`."""


def _one_without_a_name() -> dict[str, Fields]:
    return {"": {}}


@dataclasses.dataclass(frozen=True)
class Arm:
    """One way to train that a study compares with the others.

    Attributes:
      title: in tables.
      fields: where it differs from the study's experiment.
      start: the arm whose last params it begins with, in the same block; None begins anew.
      costs: whether `Study.gradients` sets its epochs; else its fields do.
    """

    title: str
    fields: Fields = dataclasses.field(default_factory=dict)
    start: str | None = None
    costs: bool = True


@dataclasses.dataclass(frozen=True)
class Study:
    """Arms × architectures × folds × seeds; each combination of the last three is a block.

    Attributes:
      experiment: the one that every run is a variation of.
      arms: by the names of their folders, in the order of the tables.
      architectures: fields by name.
      folds: fields by name, such as `{"fold0": {"data.folds": 5, "data.fold": 0}}`.
      seeds: of params, order and attacks.
      gradients: what every arm's own training may cost, in training gradients of one expert for
        each training example; None leaves the epochs as the fields say.
      attacks: those that judge every run, names of `jaxmoe attacks` and cascades.
      epsilons: their radii, in pixel units.
      evaluation: more options of `jaxmoe evaluate` by name, such as `{"steps": 20}`.
      transfer: attacks of the transfer matrix of a block's arms; none makes none.
      compared: arms that are compared with every other one, clip by clip.
      simplest: the arm that could explain the others, one network of equal cost, say: compared too.
    """

    experiment: Experiment
    arms: Mapping[str, Arm]
    architectures: Mapping[str, Fields] = dataclasses.field(default_factory=_one_without_a_name)
    folds: Mapping[str, Fields] = dataclasses.field(default_factory=_one_without_a_name)
    seeds: tuple[int, ...] = (0,)
    gradients: float | None = None
    attacks: tuple[str, ...] = ("pgd", "auto-attack")
    epsilons: tuple[float, ...] = (8 / 255,)
    evaluation: Fields = dataclasses.field(default_factory=dict)
    transfer: tuple[str, ...] = ()
    compared: tuple[str, ...] = ()
    simplest: str | None = None

    def __post_init__(self) -> None:
        """Refuses arms that are not there.

        Raises:
          ValueError: one line with the field and the name.
        """
        if not self.arms:
            raise ValueError("arms: none; expected at least one")
        known = ", ".join(self.arms)
        named = {f"arms.{name}.start": arm.start for name, arm in self.arms.items()}
        named |= {"simplest": self.simplest}
        named |= {f"compared[{i}]": name for i, name in enumerate(self.compared)}
        for field, name in named.items():
            if name is not None and name not in self.arms:
                raise ValueError(f"{field}: {name!r} is no arm; expected one of {known}")
        for name in (*self.arms, *self.architectures, *self.folds):
            if not isinstance(name, str) or "/" in name or name.startswith("."):
                raise ValueError(f"arms, architectures, folds: {name!r}; expected a folder's name")
        for name in ("", "transfer"):
            if name in self.arms:
                raise ValueError(f"arms: {name!r} is not accepted; expected another folder's name")
        blocks = ["-".join(filter(None, (a, f))) for a in self.architectures for f in self.folds]
        if len(set(blocks)) < len(blocks) or len(set(self.seeds)) < len(self.seeds):
            raise ValueError("architectures, folds, seeds: two blocks have one name")
        for name in self.arms:
            self._check_ends(name)
        for field in ("seeds", "epsilons", "attacks", "architectures", "folds"):
            if not getattr(self, field):
                raise ValueError(f"{field}: none; expected at least one")

    def _check_ends(self, name: str) -> None:
        """Refuses arms that begin with each other."""
        seen = [name]
        while (start := self.arms[seen[-1]].start) is not None:
            if start in seen:
                raise ValueError(f"arms.{name}.start: {' → '.join([*seen, start])} has no end")
            seen.append(start)

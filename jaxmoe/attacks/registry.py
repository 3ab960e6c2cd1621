"""The papers' names of the attacks, and the functions that they stand for."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

from jaxmoe.attacks.attack import Attack, Model
from jaxmoe.attacks.auto_pgd import apgd_ce, apgd_dlr, apgd_t
from jaxmoe.attacks.cascade import CASCADES
from jaxmoe.attacks.compiled import at_edge, run_as_program, run_here
from jaxmoe.attacks.component_attacks import (
    j_tla,
    j_tlga,
    pgd_e,
    pgd_r,
    tla_e,
    tla_r,
    tlga_r,
)
from jaxmoe.attacks.edge import check_epsilon
from jaxmoe.attacks.enumerated_attacks import (
    enumerated_route,
    j_tlga_t,
    pgd_e_t,
    pgd_each_e,
    pgd_r_t,
    pgd_t,
)
from jaxmoe.attacks.fab import fab, fab_t
from jaxmoe.attacks.gradient_attacks import fgsm, mi_fgsm, pgd, pgd_standing, tla_m
from jaxmoe.attacks.settings import AttackSettings
from jaxmoe.attacks.square import square
from jaxmoe.attacks.temporal_attacks import flicker, sparse, tt
from jaxmoe.mixture import Mixture
from jaxmoe.spelling import did_you_mean
from jaxmoe.threat import ThreatModel

COMPONENTS = ("model", "router", "experts", "joint")


class NamedAttack(NamedTuple):
    """An attack of the registry."""

    title: str  # the paper's name
    build: Callable[[Model, ThreatModel, AttackSettings], Attack]
    component: str  # one of `COMPONENTS`: what it attacks
    one_step: bool = False
    from_clean: bool = False  # starts at the clean input, where a restart would repeat the run
    black_box: bool = False  # looks at logits alone, `queries` times
    by_parts: bool = False  # of a mixture: its gradients are those of parts, never of the whole
    by_target: bool = False  # one target with `first_target` is an attempt like all of them
    restarts_inside: bool = False  # only the first start differs from the others
    one_label: bool = False  # looks for one wrong label, so that pixels' labels are not for it
    partial: bool = False  # looks in a part of the ball alone, or along another model's gradient
    temporal: bool = False  # takes the inputs' second axis for frames
    picture: bool = False  # takes their last three axes for height, width and channels
    by_route: bool = False  # forces every choice of experts
    maximises: str = ""  # what, in a line

    @property
    def sees_routing(self) -> bool:
        """Whether its gradient is that of a whole mixture, of which there are three modes."""
        whole = self.component in ("model", "joint")
        return whole and not (self.black_box or self.by_parts)

    @property
    def needs_route(self) -> bool:
        """Returns whether it is for a router that has a choice."""
        return self.by_route or self.component == "router"

    @property
    def white_box(self) -> bool:
        """Whether it looks everywhere in the ball, by gradients, for what the whole gets wrong."""
        whole = self.component in ("model", "joint")
        return whole and not (self.black_box or self.one_step or self.partial)

    def idles(self, model: Model) -> bool:
        """Returns whether it can change nothing: a router of one expert has no choice to make."""
        alone = isinstance(model, Mixture) and model.num_experts == 1
        return alone and self.component == "router"

    def calls(self, settings: AttackSettings) -> tuple[int, AttackSettings]:
        """How many calls an evaluation makes for the restarts, and the settings of each.

        Restarts are calls of their own, each scored by itself: a greater loss is not always a wrong
        class.
        """
        if self.restarts_inside:
            return 1, settings
        restarts = 1 if self.from_clean else settings.restarts
        return restarts, dataclasses.replace(settings, restarts=1)

    def attempts(
        self, settings: AttackSettings, classes: int
    ) -> Iterator[tuple[AttackSettings, int]]:
        """The same, and every target is a call of its own: settings and the number of the start."""
        calls, settings = self.calls(settings)
        targets = [settings]
        if self.by_target:
            one = dataclasses.replace(settings, targets=1)
            count = min(settings.targets, classes - 1)
            targets = [dataclasses.replace(one, first_target=number) for number in range(count)]
        return itertools.product(targets, range(calls))

    def numbers(self, settings: AttackSettings) -> dict[str, Any]:
        """The fields of `settings` that its result depends on; all of an attack of one's own."""
        found = dataclasses.asdict(settings)
        if not self.build.__module__.startswith("jaxmoe."):
            return found
        unused = set() if self.by_target else {"targets", "first_target"}
        if not self.temporal:
            unused |= {"temporal_alpha", "lam", "gamma1", "gamma2"}
        if self.from_clean:
            unused |= {"restarts"}
        if self.one_step:
            unused |= {"steps", "alpha"}
        if self.black_box:
            unused |= found.keys() - {"queries", "square_frames", "restarts"}
        else:
            unused |= {"queries", "square_frames"}
        return {name: value for name, value in found.items() if name not in unused}

    def steps(self, settings: AttackSettings) -> int:
        """Steps of one start: gradients' or, of a black-box attack, queries."""
        if self.one_step:
            return 1
        return settings.queries if self.black_box else settings.steps


ATTACKS: dict[str, NamedAttack] = {
    "fgsm": NamedAttack(
        "FGSM", fgsm, "model", one_step=True, from_clean=True, maximises="CE(F), in one step"
    ),
    "pgd": NamedAttack("PGD", pgd, "model", maximises="CE(F)"),
    "pgd-standing": NamedAttack(
        "PGD-standing",
        pgd_standing,
        "model",
        maximises="the CE of what is still right, such as pixels",
    ),
    "mi-fgsm": NamedAttack(
        "MI-FGSM", mi_fgsm, "model", from_clean=True, maximises="CE(F), with momentum"
    ),
    "apgd-ce": NamedAttack("APGD-CE", apgd_ce, "model", maximises="CE(F), by Auto-PGD"),
    "apgd-dlr": NamedAttack(
        "APGD-DLR",
        apgd_dlr,
        "model",
        maximises="the ratio of logits' differences, by Auto-PGD",
    ),
    "apgd-t": NamedAttack(
        "APGD-T",
        apgd_t,
        "model",
        by_target=True,
        maximises="that ratio toward each of 9 targets, by Auto-PGD",
    ),
    "fab": NamedAttack(
        "FAB",
        fab,
        "model",
        restarts_inside=True,
        one_label=True,
        maximises="nothing: it looks for the nearest wrong input",
    ),
    "fab-t": NamedAttack(
        "FAB-T",
        fab_t,
        "model",
        by_target=True,
        restarts_inside=True,
        one_label=True,
        maximises="nothing: it looks for the nearest input of each target",
    ),
    "square": NamedAttack(
        "Square",
        square,
        "model",
        black_box=True,
        one_label=True,
        picture=True,
        maximises="the likeliest wrong class, by 5000 queries and no gradient",
    ),
    "tt": NamedAttack(
        "TT",
        tt,
        "model",
        from_clean=True,
        partial=True,
        temporal=True,
        maximises="the mean CE(F) of the clip shifted in time, for transfer",
    ),
    "sparse": NamedAttack(
        "Sparse",
        sparse,
        "model",
        partial=True,
        temporal=True,
        maximises="CE(F), on few frames",
    ),
    "flicker": NamedAttack(
        "Flicker",
        flicker,
        "model",
        partial=True,
        temporal=True,
        picture=True,
        maximises="CE(F), with one colour offset for each frame",
    ),
    "pgd-r": NamedAttack("PGD-R", pgd_r, "router", maximises="CE(r, its clean choice)"),
    "tla-r": NamedAttack(
        "TLA-R",
        tla_r,
        "router",
        temporal=True,
        maximises="PGD-R's + λ L_Lip(r), in temporal steps",
    ),
    "tlga-r": NamedAttack(
        "TLGA-R",
        tlga_r,
        "router",
        temporal=True,
        maximises="TLA-R's − γ1 CE(r, the least trusted expert)",
    ),
    "pgd-e": NamedAttack(
        "PGD-E", pgd_e, "experts", maximises="CE of the experts, the route frozen"
    ),
    "tla-e": NamedAttack(
        "TLA-E",
        tla_e,
        "experts",
        temporal=True,
        maximises="PGD-E's + λ L_Lip of the experts, in temporal steps",
    ),
    "tla-m": NamedAttack(
        "TLA-M",
        tla_m,
        "model",
        temporal=True,
        maximises="CE(F) + λ L_Lip(F), in temporal steps",
    ),
    "j-tla": NamedAttack(
        "J-TLA", j_tla, "joint", temporal=True, maximises="TLA-M's + γ2 times TLA-R's"
    ),
    "j-tlga": NamedAttack(
        "J-TLGA",
        j_tlga,
        "joint",
        temporal=True,
        maximises="TLA-M's + γ2 times TLGA-R's",
    ),
    "pgd-t": NamedAttack(
        "PGD-T", pgd_t, "model", by_target=True, maximises="−CE(F) of each of 9 targets"
    ),
    "pgd-r-t": NamedAttack("PGD-R-T", pgd_r_t, "router", maximises="−CE(r) of each other expert"),
    "pgd-e-t": NamedAttack(
        "PGD-E-T",
        pgd_e_t,
        "experts",
        by_target=True,
        maximises="−CE of each of 9 targets by the experts, the route frozen",
    ),
    "pgd-each-e": NamedAttack(
        "PGD-each-E",
        pgd_each_e,
        "experts",
        maximises="CE(E_j), for each expert j by itself",
    ),
    "enumerated-route": NamedAttack(
        "Enumerated route",
        enumerated_route,
        "joint",
        by_route=True,
        by_parts=True,
        maximises="CE(E_j) − CE(r, j) for each expert j, by Auto-PGD",
    ),
    "j-tlga-t": NamedAttack(
        "J-TLGA-T",
        j_tlga_t,
        "joint",
        by_target=True,
        temporal=True,
        maximises="J-TLGA's with −CE(F) of each of 9 targets",
    ),
}


ALIASES = {"autoattack": "auto-attack", "aa": "auto-attack"}


def canonical_name(name: str) -> str:
    """The key in `ATTACKS` or `CASCADES` of a paper's name in any case, `-` and `_` alike.

    Raises:
      ValueError: no such attack; the message has the nearest name.
    """
    if name in ATTACKS:
        return name
    key = name.lower().replace("_", "-")
    key = ALIASES.get(key, key)
    known = [*ATTACKS, *CASCADES]
    if key not in known:
        hint = did_you_mean(key, known, cutoff=0.4) or "."
        raise ValueError(f"attack: {name!r} is no attack{hint} All are {', '.join(known)}")
    return key


def find_attack(name: str) -> NamedAttack:
    """The attack with a paper's name, spelt as `canonical_name` allows.

    Raises:
      ValueError: no such attack, or a cascade of several; the message has the nearest name. Or an
        attack of one's own on a part that there is not.
    """
    key = canonical_name(name)
    if key in CASCADES:
        raise ValueError(f"attack: {key} is a cascade; expected one attack, {', '.join(ATTACKS)}")
    component = ATTACKS[key].component
    if component not in COMPONENTS:
        raise ValueError(
            f"attack: {key} has component {component!r}; expected one of {', '.join(COMPONENTS)}"
        )
    return ATTACKS[key]


def build_attack(
    name: str, model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """Returns the attack called `name` on a model, checked and compiled (`compiled.at_edge`).

    It takes `x` as floats in `threat.bounds`, of any width, or as uint8 grey levels, `y` as
    integers, and `key` as a typed key, one for each example, a legacy key or a seed. `x_adv` has 32
    bits or more. Outside of `jit` it is compiled once for each model, whatever ε and the numbers:
    what a model closes over, or an object keeps, is read then. What may change belongs in `params`.

    Raises:
      ValueError: no such attack, or an attack on a mixture's part and a model that is no mixture;
        on use, inputs, labels, params or a key that are none.
    """
    return _at_edge(name, model, threat, settings, run_as_program)


def build_traced(
    name: str, model: Model, threat: ThreatModel, settings: AttackSettings = AttackSettings()
) -> Attack:
    """Returns the attack that `build_attack` does, for a program that is compiled as a whole."""
    return _at_edge(name, model, threat, settings, run_here)


def _at_edge(name, model, threat, settings, run) -> Attack:
    named = find_attack(name)
    check_epsilon(threat)
    named.build(model, threat, settings)  # says what cannot be built
    reads = {"picture": named.picture, "temporal": named.temporal}
    return at_edge(canonical_name(name), named.build, model, threat, settings, **reads, run=run)

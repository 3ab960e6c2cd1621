"""A defence is a list of phases; a phase is an inner attack, a loss, and which parts move."""

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple

from jaxtyping import Array, Float, Int, Key

from jaxmoe.attacks import AttackSettings
from jaxmoe.choices import AdversarialLoss, Balance
from jaxmoe.mixture import Mixture, Routing
from jaxmoe.threat import ThreatModel

Params = Any
PARTS = frozenset({"router", "experts"})  # of every mixture; one with a head may have others


class Found(NamedTuple):
    """The result of a phase's attack, for its loss and for the attack of the next phase."""

    x_adv: Float[Array, "batch ..."]
    finite: Array | bool = True  # whether the attack saw only finite gradients
    routing: Routing | None = None  # a route that the loss keeps fixed
    # Inputs that the experts are to withstand by themselves: [B, …], or [M, B, …], one each.
    x_experts: Float[Array, "..."] | None = None
    index: Int[Array, " batch"] | None = None  # the examples' own numbers; a step fills them in


PhaseAttack = Callable[
    [
        Key[Array, " batch"],
        Params,
        Float[Array, "batch ..."],
        Int[Array, "batch ..."],
        Found | None,
    ],
    Found,
]
"""`(keys, params, x, y, found by the phase before, None for the first) -> Found`."""

PhaseLoss = Callable[
    [Params, Float[Array, "batch ..."], Int[Array, "batch ..."], Found], Float[Array, " batch"]
]
"""`(params, x, y, found) -> [B]`, minimised in the mean."""


class Phase(NamedTuple):
    """One update of a step. What is not in `moves` stays the same to the bit.

    Where router and experts both move, a head with params of its own, `"head"`, moves with them.
    """

    name: str
    attack: PhaseAttack | None  # None trains on clean inputs
    loss: PhaseLoss
    moves: frozenset[str] = PARTS


AttackedRoute = Literal["own", "clean"]


class RecipeOptions(NamedTuple):
    """The numbers that recipes share."""

    attack: AttackSettings = AttackSettings()  # of the inner attacks
    inner_attack: str | None = None  # on the whole, by name; None is the recipe's own
    loss: AdversarialLoss | None = None  # of what that attack finds; None is the recipe's own
    lam: float = 1e-4  # λ in the losses that are minimised
    label_smoothing: float = 0.0  # of the labels in these losses; attacks see them as they are
    balance: Balance = "switch"
    # In every phase that moves a router; J-TLAT collapses without. None is none in a step, and what
    # the recipe needs in `jaxmoe.fit`.
    balance_weight: float | None = None
    router_noise: float = 0.0  # standard deviation; of `apply` in losses, not in attacks
    # Experts that an example cannot be sent to, drawn anew each time; of `apply` in losses, too.
    dropped_experts: int = 0
    spread_left: float = 1.0  # share of balance weight and noise that is left at a stage's end
    # Of CE(r(x'), argmax r(x)), where a phase attacks and moves everything. Below this weight a
    # Switch loss cannot keep a router from one expert for all.
    route_weight: float = 0.0
    attacked_route: AttackedRoute = "own"  # which route picks the expert that x' trains
    router_attack: str = "tlga-r"  # of J-TLAT's first phase, and of its second's weak experts
    weak_experts: int = 2  # of J-TLAT's second phase
    repairs: tuple[str, ...] = ("router", "weak_experts", "global")  # J-TLAT's phases
    global_attack: str = "j-tlga"  # of J-TLAT's third phase
    beta: float = 6.0  # β of the Kullback-Leibler terms of RT-ER, JTDMoE, AdvMoE and TRADES
    expert_attack: Literal["own", "shared"] = "own"  # what RT-ER's expert sees: its own δ, or F's
    upper_moves: Literal["both", "standard"] = "both"  # in JTDMoE's upper level
    radii: int = 0  # of AAT-M: ε of a batch is drawn from so many, by their weights in the state

    @property
    def inner(self) -> AttackSettings:
        """The settings of inner attacks: with one start they keep the last iterate."""
        if self.attack.iterate is not None or self.attack.restarts > 1:
            return self.attack
        return dataclasses.replace(self.attack, iterate="last")


Recipe = Callable[[Mixture, ThreatModel, RecipeOptions], tuple[Phase, ...]]
"""A constructor of phases. The threat model's ε may be traced: it rises while training warms up."""

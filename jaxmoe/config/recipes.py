"""The recipes of training, each with its own fields.

A recipe of one's own is a subclass of `RecipeConfig` in `RECIPES`: its `phases` are what one
training step does.
"""

import dataclasses
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from jaxmoe.choices import DIVERGENCE, AdversarialLoss
from jaxmoe.options import option
from jaxmoe.registry import Entry, Registry, field_names

if TYPE_CHECKING:
    from jaxmoe.mixture import Mixture
    from jaxmoe.threat import ThreatModel
    from jaxmoe.training import Phase, RecipeOptions

RECIPES = Registry(
    "recipe",
    "RECIPES",
    {
        "standard": f"{__name__}:StandardConfig",
        "at_m": f"{__name__}:ATMConfig",
        "at_s": f"{__name__}:ATSConfig",
        "at_d": f"{__name__}:ATDConfig",
        "aat_m": f"{__name__}:AATMConfig",
        "oud_m": f"{__name__}:OUDMConfig",
        "trades": f"{__name__}:TRADESConfig",
        "tlat": f"{__name__}:TLATConfig",
        "j_tlat": f"{__name__}:JTLATConfig",
        "rt_er": f"{__name__}:RTERConfig",
        "jtdmoe": f"{__name__}:JTDMoEConfig",
        "gate": f"{__name__}:GateConfig",
        "adv_moe": f"{__name__}:AdvMoEConfig",
    },
    aliases={"pgd_at": "at_m"},
)


@dataclasses.dataclass(frozen=True)
class RecipeConfig(Entry):
    """How a mixture is trained: standard, or against attacks.

    Attributes:
      is_clean: it is clean training of the whole mixture: no such stage comes before it, and it may
        have no epochs of its own where experts part.
      sees_frames: its attacks are attacks in time, so it trains on clips.
      needs_dual: it trains a dual model, `mixture.dual_weight`.
      function: its name in `training.recipes`, where it is not that of the entry.
      needs_experts: it takes at least so many.
      most_experts: and at most so many, if there is a limit.
      needs_all_experts: every example sees all experts, `mixture.top_k`.
      needs_restoration: its experts have a restoration block, `expert.restoration`.
      needs_weights: it trains the router by the weights of the experts' outputs alone.
      keeps_experts: it leaves the experts as they are, so they come from other runs.
      own_route: it decides itself which expert an attacked clip trains, and takes no noise there.
      balance_weight: of the balance loss, where nobody says it (`jaxmoe.fit`).
    """

    registry: ClassVar[Registry] = RECIPES
    is_clean: ClassVar[bool] = False
    sees_frames: ClassVar[bool] = False
    needs_dual: ClassVar[bool] = False
    function: ClassVar[str | None] = None
    needs_experts: ClassVar[int] = 1
    most_experts: ClassVar[int | None] = None
    needs_all_experts: ClassVar[bool] = False
    needs_restoration: ClassVar[bool] = False
    needs_weights: ClassVar[bool] = False
    keeps_experts: ClassVar[bool] = False
    own_route: ClassVar[bool] = False
    balance_weight: ClassVar[float] = 0.5

    def phases(
        self, mixture: "Mixture", threat: "ThreatModel", options: "RecipeOptions"
    ) -> "tuple[Phase, ...]":
        """Returns the phases of a training step; `options` has the numbers of `fill` by then.

        Here they are those of the function of this name in `training.recipes`.
        """
        from jaxmoe.training import recipes

        return getattr(recipes, self.function or self.name)(mixture, threat, options)

    def fill(self, options: "RecipeOptions") -> "RecipeOptions":
        """Returns the options with the fields of this recipe that they have too."""
        own = {name: getattr(self, name) for name in field_names(type(self))}
        return options._replace(**{k: v for k, v in own.items() if k in options._fields})

    @property
    def in_turn(self) -> bool:
        """Says if each phase has epochs of its own; else all are taken on every batch."""
        return False

    @property
    def attacks(self) -> dict[str, str]:
        """The attacks of `jaxmoe attacks` that its fields name, by field."""
        names = ("inner_attack", "router_attack", "global_attack")
        found = {name: getattr(self, name) for name in names if hasattr(self, name)}
        return {field: name for field, name in found.items() if name != DIVERGENCE}

    def refusals(self, mixture: Any) -> Iterator[tuple[str, object, str]]:
        """Yields what does not fit a `MixtureConfig`: a field, its value, what is accepted."""
        del mixture
        yield from ()


@dataclasses.dataclass(frozen=True)
class StandardConfig(RecipeConfig):
    """Cross-entropy of clean inputs."""

    name: ClassVar[str] = "standard"
    is_clean: ClassVar[bool] = True


_INNER = "which attack finds x': a name of `jaxmoe attacks`, or divergence, TRADES's own"
_LOSS = (
    "ce is CE(F(x')); half is its mean with CE(F(x)); trades is CE(F(x)) + β KL(F(x) ‖ F(x')); "
    "lipschitz is CE(F(x')) + λ L_Lip(F)"
)


@dataclasses.dataclass(frozen=True)
class EndToEndConfig(RecipeConfig):
    """Adversarial training of the whole: an attack, and a loss of what it finds."""

    inner_attack: str = option("pgd", _INNER)
    loss: AdversarialLoss = option("ce", _LOSS)
    beta: float = option(6.0, "β of the divergence in loss = trades", least=0)
    lam: float = option(1e-4, "λ of the Lipschitz quotient in loss = lipschitz", least=0)


@dataclasses.dataclass(frozen=True)
class ATMConfig(EndToEndConfig):
    """AT-M: adversarial training of the whole mixture with PGD."""

    name: ClassVar[str] = "at_m"


@dataclasses.dataclass(frozen=True)
class ATSConfig(EndToEndConfig):
    """AT-S: AT-M of one network the size of an expert, mixture.experts = 1."""

    name: ClassVar[str] = "at_s"
    function: ClassVar[str] = "at_m"
    most_experts: ClassVar[int] = 1


@dataclasses.dataclass(frozen=True)
class ATDConfig(EndToEndConfig):
    """AT-D: AT-M of the dense net: every example sees all experts."""

    name: ClassVar[str] = "at_d"
    function: ClassVar[str] = "at_m"
    needs_experts: ClassVar[int] = 2
    needs_all_experts: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class AATMConfig(EndToEndConfig):
    """AAT-M: AT-M whose ε is drawn for each batch, more often where the loss is large."""

    name: ClassVar[str] = "aat_m"
    function: ClassVar[str] = "at_m"

    radii: int = option(10, "ε to draw from, evenly spaced from 0 to threat.epsilon", least=2)
    measure_every: int = option(10, "epochs between measurements of their losses", least=1)


@dataclasses.dataclass(frozen=True)
class OUDMConfig(EndToEndConfig):
    """OUD-M: AT-M of experts with a restoration block, expert.restoration = true."""

    name: ClassVar[str] = "oud_m"
    function: ClassVar[str] = "at_m"
    needs_restoration: ClassVar[bool] = True


@dataclasses.dataclass(frozen=True)
class TRADESConfig(EndToEndConfig):
    """TRADES on the whole mixture: clean cross-entropy and β times a divergence."""

    name: ClassVar[str] = "trades"

    inner_attack: str = option("divergence", _INNER)
    loss: AdversarialLoss = option("trades", _LOSS)


@dataclasses.dataclass(frozen=True)
class TLATConfig(EndToEndConfig):
    """TLAT: adversarial training of the whole mixture with TLA-M."""

    name: ClassVar[str] = "tlat"
    sees_frames: ClassVar[bool] = True

    inner_attack: str = option("tla-m", _INNER)
    loss: AdversarialLoss = option("lipschitz", _LOSS)


@dataclasses.dataclass(frozen=True)
class AdvMoEConfig(RecipeConfig):
    """AdvMoE: experts and router in turn, each by a divergence of its own."""

    name: ClassVar[str] = "adv_moe"
    needs_experts: ClassVar[int] = 2

    inner_attack: str = option(
        "divergence", "which attack finds x': a name of `jaxmoe attacks`, or divergence, of both"
    )
    beta: float = option(6.0, "β of both divergences", least=0)
    steps: int = option(2, "of its attack, whichever it is, in place of attack.steps", least=1)

    def phases(
        self, mixture: "Mixture", threat: "ThreatModel", options: "RecipeOptions"
    ) -> "tuple[Phase, ...]":
        """Returns the phases; their attack takes the steps of this recipe."""
        attack = dataclasses.replace(options.attack, steps=self.steps)
        return super().phases(mixture, threat, options._replace(attack=attack))


@dataclasses.dataclass(frozen=True)
class JTLATConfig(RecipeConfig):
    """J-TLAT: repairs the router, the weak experts and the whole mixture in turn."""

    name: ClassVar[str] = "j_tlat"
    sees_frames: ClassVar[bool] = True
    balance_weight: ClassVar[float] = 1.5

    order: Literal["minibatch", "epoch"] = option(
        "minibatch", "all phases on each batch, or an epoch of each in turn"
    )
    router_attack: str = option(
        "tlga-r", "of the first phase: a name of `jaxmoe attacks`, and the route of the second"
    )
    global_attack: str = option("j-tlga", "of the third phase: a name of `jaxmoe attacks`")
    weak_experts: int = option(2, "experts that the second phase repairs", least=1)
    repairs: tuple[Literal["router", "weak_experts", "global"], ...] = option(
        ("router", "weak_experts", "global"), "its phases; fewer are an ablation"
    )
    lam: float = option(1e-4, "λ of the Lipschitz quotients in the losses", least=0)

    @property
    def in_turn(self) -> bool:
        """Says if each phase has epochs of its own."""
        return self.order == "epoch"

    def refusals(self, mixture: Any) -> Iterator[tuple[str, object, str]]:
        """Yields more weak experts than there are, and no phases."""
        if not self.repairs:
            yield "repairs", "none", "at least one of router, weak_experts and global"
        if self.weak_experts > mixture.experts:
            yield (
                "weak_experts",
                self.weak_experts,
                f"at most mixture.experts = {mixture.experts}",
            )


@dataclasses.dataclass(frozen=True)
class RTERConfig(RecipeConfig):
    """RT-ER: experts that are robust by themselves."""

    name: ClassVar[str] = "rt_er"
    needs_experts: ClassVar[int] = 2

    inner_attack: str = option("pgd", _INNER)
    beta: float = option(6.0, "β of the divergence", least=0)
    expert_attack: Literal["own", "shared"] = option(
        "own", "what attacks the second expert: a perturbation of its own, or the mixture's"
    )


@dataclasses.dataclass(frozen=True)
class JTDMoEConfig(RecipeConfig):
    """JTDMoE: a dual model's standard and robust mixtures, trained together."""

    name: ClassVar[str] = "jtdmoe"
    needs_dual: ClassVar[bool] = True
    own_route: ClassVar[bool] = True

    inner_attack: str = option("pgd", _INNER)
    beta: float = option(6.0, "β of the divergence", least=0)
    expert_attack: Literal["own", "shared"] = option(
        "own", "what attacks an expert: a perturbation of its own, or the mixture's"
    )
    upper_moves: Literal["both", "standard"] = option("both", "what the upper level trains")


@dataclasses.dataclass(frozen=True)
class GateConfig(RecipeConfig):
    """Trains a router or gate on experts that stay as they are."""

    name: ClassVar[str] = "gate"
    needs_experts: ClassVar[int] = 2
    needs_weights: ClassVar[bool] = True
    keeps_experts: ClassVar[bool] = True

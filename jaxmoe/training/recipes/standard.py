"""Clean training: the mixture, all its experts at once, or one expert alone as the start of all."""

from jaxmoe.mixture import Mixture, with_gradient
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import Phase, RecipeOptions


def standard(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """CE(F(x), y) on clean clips."""
    del threat
    classify = label_loss(options)

    def loss(params, x, y, found):
        del found
        return classify(mixture.apply(params, x), y)

    return (Phase("standard", None, loss),)


def dense(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """CE(Σ_i a_i E_i(x), y): every expert learns from every clip, before routing hardens."""
    del threat
    classify = label_loss(options)
    apply = with_gradient(mixture, "soft")

    def loss(params, x, y, found):
        del found
        return classify(apply(params, x), y)

    return (Phase("dense", None, loss),)


def shared_expert(
    mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> tuple[Phase, ...]:
    """CE(E_0(x), y): expert 0 learns from every clip, to be copied to the others.

    With few clips, an expert that sees only its share of them learns slowly, and a router that
    trains beside young experts collapses onto one. Reference: sparse upcycling, Komatsuzaki et al.
    2023 (https://arxiv.org/abs/2212.05055).
    """
    del threat
    classify = label_loss(options)

    def loss(params, x, y, found):
        del found
        return classify(mixture.expert(params, x, 0), y)

    return (Phase("shared_expert", None, loss, frozenset({"experts"})),)

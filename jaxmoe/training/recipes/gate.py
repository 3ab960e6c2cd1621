"""Training a gate on top of experts that stay as they are."""

from jaxmoe.mixture import Mixture, no_head
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import label_loss
from jaxmoe.training.phase import Phase, RecipeOptions


def gate(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
    """CE(F(x), y) on clean inputs; the router moves, and the head where there is one.

    The second stage of a model-level mixture (`mixture.from_gate`), whose experts were trained on
    subsets of the data: https://arxiv.org/abs/2412.11608.
    """
    del threat
    classify = label_loss(options)

    def loss(params, x, y, found):
        del found
        return classify(mixture.apply(params, x), y)

    moves = {"router"} if mixture.head is no_head else {"router", "head"}
    return (Phase("gate", None, loss, frozenset(moves)),)

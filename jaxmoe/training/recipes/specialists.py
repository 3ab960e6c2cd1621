"""Clean training in which experts part: each example has one expert, and the router learns which.

Axes: B = batch, M = experts.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from jaxmoe.attacks import cross_entropy
from jaxmoe.mixture import Mixture, assign_evenly
from jaxmoe.threat import ThreatModel
from jaxmoe.training.losses import Classify, label_loss
from jaxmoe.training.phase import Phase, Recipe, RecipeOptions

Assign = Callable[
    [Mixture, Any, Float[Array, "batch ..."], Int[Array, " batch"]], Int[Array, " batch"]
]
"""`(mixture, params, x, y) -> [B]`, the expert that learns from each example.

It sees one device's share of the batch: loads that are evened out are even on each device.
"""


def specialists(assign: Assign) -> Recipe:
    """CE(E_c(x), y) + CE(r(x), c) with the expert c that `assign` gives each clean x."""

    def recipe(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
        del threat
        classify = label_loss(options)

        def loss(params, x, y, found):
            del found
            experts = jax.lax.stop_gradient(assign(mixture, params, x, y))
            return _specialists_loss(mixture, params, x, y, experts, classify)

        return (Phase("specialists", None, loss),)

    return recipe


def specialists_of(experts: Int[np.ndarray, " examples"]) -> Recipe:
    """As `specialists`, with an expert that is known for each example: of its domain, say.

    Gururangan et al. 2022, DEMix, https://arxiv.org/abs/2108.05036.

    Args:
      experts: by an example's own number.
    """

    def recipe(mixture: Mixture, threat: ThreatModel, options: RecipeOptions) -> tuple[Phase, ...]:
        del threat
        classify = label_loss(options)

        def loss(params, x, y, found):
            own = jnp.asarray(experts, jnp.int32)[found.index]
            return _specialists_loss(mixture, params, x, y, own, classify)

        return (Phase("specialists", None, loss),)

    return recipe


def _specialists_loss(
    mixture: Mixture,
    params: Any,
    x: Array,
    y: Array,
    experts: Int[Array, " batch"],
    classify: Classify,
) -> Float[Array, " batch"]:
    logits = mixture.select(params, x, experts[:, None])[:, 0]
    return classify(logits, y) + cross_entropy(mixture.route(params, x), experts)


def expert_choice(
    mixture: Mixture, threat: ThreatModel, options: RecipeOptions
) -> tuple[Phase, ...]:
    """CE(Σ_i a_i E_i(x), y) over the experts i that chose x: each takes the ⌈B / M⌉ it fits best.

    Loads are even by construction; an example may have several experts, or none, and then teaches
    none. Zhou et al. 2022, https://arxiv.org/abs/2202.09368. For training alone: who else is in a
    device's share of the batch decides, so the mixture itself goes on choosing by the router.
    """
    del threat
    classify = label_loss(options)

    def loss(params, x, y, found):
        del found
        weights = jax.nn.softmax(mixture.route(params, x), axis=-1)
        taken = -(-len(x) // mixture.num_experts)
        weight, clips = jax.lax.top_k(weights.T, taken)  # [M, taken]
        experts = jnp.repeat(jnp.arange(mixture.num_experts), taken)
        outputs = mixture.select(params, x[clips.reshape(-1)], experts[:, None])[:, 0]
        outputs = outputs * weight.reshape(-1, *[1] * (outputs.ndim - 1)).astype(outputs.dtype)
        logits = jnp.zeros((len(x), *outputs.shape[1:]), outputs.dtype)
        return classify(logits.at[clips.reshape(-1)].add(outputs), y)

    return (Phase("expert_choice", None, loss),)


def by_own_choice(mixture: Mixture, params: Any, x: Array, y: Array) -> Array:
    """The router's own choice, evened out: BASE layers, Lewis et al. 2021.

    https://arxiv.org/abs/2103.16716
    """
    del y
    return assign_evenly(jax.nn.log_softmax(mixture.route(params, x)))


def by_likelihood(mixture: Mixture, params: Any, x: Array, y: Array) -> Array:
    """The expert that explains the label best among those that the router trusts, evened out.

    Hard EM of a mixture of experts, `argmax_i log a_i(x) + log p_i(y | x)`: Jordan and Jacobs 1994.
    Without the router's part experts would part by class, which no router can know of a new clip.
    """
    prior = jax.nn.log_softmax(mixture.route(params, x))
    losses = jax.vmap(lambda logits: cross_entropy(logits, y))(mixture.experts(params, x))
    return assign_evenly(prior - losses.T)


def by_cluster(centres: Float[Array, "experts features"], features: Callable) -> Assign:
    """The cluster whose centre is nearest to the example's features; not evened out.

    Experts trained on clusters and joined: c-BTM, Gururangan et al. 2023,
    https://arxiv.org/abs/2303.14177.
    """

    def assign(mixture, params, x, y):
        del mixture, params, y
        distance = features(x)[:, None] - jnp.asarray(centres)[None]
        return jnp.argmin(jnp.sum(jnp.square(distance), axis=-1), axis=-1)

    return assign

"""The mixture as the losses of training see it: with noise, or fewer experts, or clean routes.

Axes: B = batch of this device.
"""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Key

from jaxmoe.mixture import Mixture, noisy_route, with_training_route
from jaxmoe.training.phase import RecipeOptions

_NEVER = -1e9  # added to a router's logit; its weight is 0


def differs(options: RecipeOptions) -> bool:
    """Returns whether losses see another mixture than attacks do."""
    apart = options.router_noise or options.dropped_experts
    return bool(apart) or options.attacked_route == "clean"


def learning_mixture(
    mixture: Mixture, options: RecipeOptions, share: Array, keys: Key[Array, " batch"], x: Array
) -> Mixture:
    """Returns the mixture as the losses of one batch x see it.

    By the clean clips' route, with noise, or without the experts that an example may not choose.
    """
    route = mixture.route
    if options.attacked_route == "clean":

        def route(params, x_adv):
            # A loss may put the clean clips before the attacked ones, in one batch.
            return jnp.concatenate([mixture.route(params, x)] * (len(x_adv) // len(x)))

    if options.router_noise:
        draw = jax.vmap(lambda key: jax.random.normal(key, (mixture.num_experts,)))
        route = noisy_route(route, options.router_noise * share * draw(keys))
    if options.dropped_experts:
        spare = mixture.num_experts - mixture.top_k
        if options.dropped_experts > spare:
            raise ValueError(
                f"dropped_experts: {options.dropped_experts}; expected at most {spare}"
            )
        shuffle = jax.vmap(lambda key: jax.random.permutation(key, mixture.num_experts))
        places = shuffle(jax.vmap(jax.random.fold_in, (0, None))(keys, 1))
        route = noisy_route(route, jnp.where(places < options.dropped_experts, _NEVER, 0.0))
    return with_training_route(mixture, route)

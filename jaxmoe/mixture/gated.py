"""Model-level mixtures: a gate reads the features of all experts and weights their outputs.

Reference: "Towards Adversarial Robustness of Model-Level Mixture-of-Experts Architectures for
Semantic Segmentation", 2024 (https://arxiv.org/abs/2412.11608).

Axes: B = batch, H W = height, width, M = experts, K = classes.
"""

from collections.abc import Callable
from typing import Literal

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from jaxmoe.mixture.mixture import (
    Clips,
    Mixture,
    Params,
    combine_weighted,
    from_functions,
    no_head,
    with_joint,
)

Pooling = Literal["mean", "max"]


def from_gate(
    gate: nn.Module, expert: nn.Module, *, num_experts: int, head: nn.Module | None = None
) -> Mixture:
    """A dense mixture whose router is a gate on the experts' features.

    `apply` runs every expert once. `route` runs all of them too, for their features; its logits are
    `[B, M]`, or `[B, K, M]` of a gate per class. Params: `"router"` is the gate's, `"experts"` have
    a leading axis M, `"head"` is there with a head.

    Args:
      gate: features of all experts, joined on the last axis, to logits (`models.gates`).
      expert: `expert(x, with_features=True) -> (logits [B, H, W, K], features [B, h, w, F])`.
      num_experts: M.
      head: of the weighted logits, such as one convolution of width 3; None leaves them.
    """

    def run(params, x):
        def one(expert_params):
            return expert.apply(expert_params, x, with_features=True)

        # Not vmap: it makes grouped convolutions, slow on every platform.
        return jax.lax.map(one, params["experts"])

    def weigh(params, features):
        joined = jnp.moveaxis(features, 0, -2)
        return gate.apply(params["router"], joined.reshape(*joined.shape[:-2], -1))

    def route(params, x):
        return weigh(params, run(params, x)[1])

    def run_joint(params, x):
        outputs, features = run(params, x)
        return weigh(params, features), outputs

    def apply_head(params, x, output):
        del x
        return head.apply(params["head"], output)

    def apply(params, x):
        router, outputs = run_joint(params, x)
        weights = jax.nn.softmax(router, axis=-1)
        return mixture.head(params, x, combine_weighted(outputs, weights))

    def init(key, x):
        keys = jax.random.split(key, 3)
        expert_params = jax.vmap(expert.init, in_axes=(0, None))(
            jax.random.split(keys[0], num_experts), x
        )
        outputs, features = jax.eval_shape(run, {"experts": expert_params}, x)
        joined = (*features.shape[1:-1], num_experts * features.shape[-1])
        params = {
            "router": gate.init(keys[1], jnp.zeros(joined, features.dtype)),
            "experts": expert_params,
        }
        if head is not None:
            params["head"] = head.init(keys[2], jnp.zeros(outputs.shape[1:], outputs.dtype))
        return params

    mixture = from_functions(
        lambda params, x: jnp.zeros((x.shape[0], num_experts)),
        lambda params, x: expert.apply(params, x),
        num_experts=num_experts,
        top_k=num_experts,
        init=init,
    )
    mixture = mixture._replace(
        route=route, apply=apply, head=no_head if head is None else apply_head
    )
    return with_joint(mixture, run_joint)


def ensemble(
    mixture: Mixture, pooling: Pooling
) -> Callable[[Params, Clips], Float[Array, "batch ..."]]:
    """A classifier of a mixture's experts alone: the mean of their logits, or their maximum.

    Raises:
      ValueError: an unknown pooling.
    """
    if pooling not in ("mean", "max"):
        raise ValueError(f"ensemble: {pooling!r} is not one of mean, max")

    def apply(params, x):
        outputs = mixture.experts(params, x)
        return jnp.mean(outputs, axis=0) if pooling == "mean" else jnp.max(outputs, axis=0)

    return apply


def component(mixture: Mixture, name: str) -> Callable[[Params, Clips], Float[Array, "batch ..."]]:
    """A classifier made of a mixture's experts: `"mean"`, `"max"`, `"expert0"`, `"expert1"`, …

    Raises:
      ValueError: none of these.
    """
    if name in ("mean", "max"):
        return ensemble(mixture, name)
    number = name.removeprefix("expert")
    if number == name or not number.isdecimal() or int(number) >= mixture.num_experts:
        raise ValueError(
            f"{name!r} is no part of a mixture; expected mean, max, or expert0 to "
            f"expert{mixture.num_experts - 1}"
        )
    return single_expert(mixture, int(number))


def single_expert(
    mixture: Mixture, expert: int
) -> Callable[[Params, Clips], Float[Array, "batch ..."]]:
    """A classifier that is one of a mixture's experts; it takes the mixture's params.

    Raises:
      ValueError: there is no such expert.
    """
    if not 0 <= expert < mixture.num_experts:
        raise ValueError(f"expert: {expert} is not from 0 to {mixture.num_experts - 1}")
    return lambda params, x: mixture.expert(params, x, expert)

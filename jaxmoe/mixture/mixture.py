"""A mixture of experts as a handful of pure functions.

Axes: B = batch, M = experts, k = chosen experts, K = classes. A dense task's logits have further
axes behind K's place; nothing here looks at them.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import chex
import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from jaxmoe.choices import COMBINES, Combine
from jaxmoe.mixture.dispatch import PlainExpert, dispatch
from jaxmoe.mixture.routing import choose
from jaxmoe.models.fast_convolutions import fast_convolutions

Params = Any
Clips = Float[Array, "batch ..."]
Router = Callable[[Params, Clips], Float[Array, "batch experts"]]
Head = Callable[[Params, Clips, Float[Array, "batch ..."]], Float[Array, "batch ..."]]


def no_head(params: Params, x: Clips, output: Array) -> Array:
    """The weighted sum of the experts as it is."""
    del params, x
    return output


class Joint(NamedTuple):
    """A run of every expert that serves the router too, and for which functions it stands.

    Attributes:
      run: `(params, x) -> (router logits, all experts' outputs [M, B, K])`, the experts run once.
      parts: the `route` and the `experts` of the mixture that it computes.
      whole: the `apply`, `head`, `combine` and `top_k` that follow from these two alone.
    """

    run: Callable[[Params, Clips], tuple[Array, Array]]
    parts: tuple
    whole: tuple


class Mixture(NamedTuple):
    """Pure functions of `params = {"router": …, "experts": … with a leading axis M}`.

    Attributes:
      init: `(key, x) -> params`.
      route: `(params, x) -> [B, M]`, router logits r(x).
      expert: `(params, x, index) -> [B, K]`, one expert on every clip.
      experts: `(params, x) -> [M, B, K]`, all experts on every clip, the dense path.
      select: `(params, x, experts [B, k]) -> [B, k, K]`, chosen experts on each clip, the
        sparse path.
      apply: `(params, x) -> [B, K]`, the hard, sparse mixture F.
      num_experts: M.
      top_k: experts that `apply` runs on a clip.
      combine: how router weights become combine weights (`routing.choose`).
      head: `(params, x, Σ_i c_i E_i(x)) -> [B, K]`, what comes after the experts: nothing, as a
        rule. Its params are parts of their own beside `"router"` and `"experts"`.
      standard: of a dual model, F_S beside this mixture F_R; its params are the part `"standard"`.
      joint: of a dense mixture, how `run_parts` runs each expert once; never used for functions
        that were replaced.
    """

    init: Callable[[Key[Array, ""], Clips], Params]
    route: Router
    expert: Callable[[Params, Clips, Array | int], Float[Array, "batch ..."]]
    experts: Callable[[Params, Clips], Float[Array, "experts batch ..."]]
    select: Callable[[Params, Clips, Int[Array, "batch k"]], Float[Array, "batch k ..."]]
    apply: Callable[[Params, Clips], Float[Array, "batch ..."]]
    num_experts: int
    top_k: int
    combine: Combine
    head: Head = no_head
    standard: "Mixture | None" = None
    joint: Joint | None = None

    def _repr_html_(self) -> str:
        """Describes it in a notebook."""
        from jaxmoe.reporting.notebook import mixture_html  # a room above, for who looks

        return mixture_html(self)


def from_functions(
    router: Router,
    expert: PlainExpert,
    *,
    num_experts: int,
    top_k: int = 1,
    combine: Combine = "softmax",
    block_size: int | None = None,
    init: Callable[[Key[Array, ""], Clips], Params] | None = None,
) -> Mixture:
    """A mixture from any two pure functions, whoever wrote them.

    Args:
      router: `(router_params, x [B, …]) -> [B, M]` logits; or integers [B], the chosen expert of
        each clip, which become a one-hot row. Integers have no gradient: such a router cannot be
        attacked by one, and evaluations flag it.
      expert: `(params of one expert, x [B, …]) -> [B, K]` logits, each clip on its own.
      num_experts: M.
      top_k: experts a clip, 1 ≤ top_k ≤ M; M is the dense mixture.
      combine: `"softmax"`, `"renormalized"` or `"none"` (`routing.choose`).
      block_size: clips in a dispatch block; None picks one from the batch and M. A fixed one makes
        kernels of the same shape for every batch.
      init: makes `{"router": …, "experts": …}`; None for params that come from elsewhere
        (`stack_experts` puts several trees of params together).

    Raises:
      ValueError: top_k outside [1, M], or an unknown combine rule; on use, a router whose output
        has another shape, or params that lack a part or an expert.
    """
    if num_experts < 1:
        raise ValueError(f"mixture.experts: {num_experts} is not at least 1")
    if not 1 <= top_k <= num_experts:
        raise ValueError(f"mixture.top_k: {top_k} is not from 1 to mixture.experts = {num_experts}")
    if combine not in COMBINES:
        raise ValueError(f"mixture.combine: {combine!r} is not one of {', '.join(COMBINES)}")
    if block_size is not None and block_size < 1:
        raise ValueError(f"mixture.block_size: {block_size} is not at least 1")

    router, expert = fast_convolutions(router), fast_convolutions(expert)

    def route(params, x):
        return _as_logits(router(_part(params, "router"), x), x, num_experts)

    def stacked(params):
        return _stacked(_part(params, "experts"), num_experts)

    def run_expert(params, x, index):
        return expert(jax.tree.map(lambda p: p[index], _part(params, "experts")), x)

    def run_experts(params, x):
        # Not vmap: it makes grouped convolutions, slow on every platform.
        return jax.lax.map(lambda expert_params: expert(expert_params, x), stacked(params))

    def select(params, x, experts):
        return dispatch(expert, stacked(params), x, experts, block_size)

    def no_init(key, x):
        del key, x
        raise ValueError("this mixture was made from functions without `init`; pass it its params")

    mixture = Mixture(
        init or no_init, route, run_expert, run_experts, select, route, num_experts, top_k, combine
    )
    return with_route(mixture, route)


def from_modules(
    router: nn.Module,
    expert: nn.Module,
    *,
    num_experts: int,
    top_k: int = 1,
    combine: Combine = "softmax",
    block_size: int | None = None,
) -> Mixture:
    """A mixture of Flax Linen modules: one router, and `num_experts` copies of `expert`.

    Every expert is drawn from its own key. Args and errors are those of `from_functions`.
    """

    def init(key, x):
        router_key, expert_key = jax.random.split(key)
        expert_params = jax.vmap(expert.init, in_axes=(0, None))(
            jax.random.split(expert_key, num_experts), x
        )
        return {"router": router.init(router_key, x), "experts": expert_params}

    return from_functions(
        router.apply,
        expert.apply,
        num_experts=num_experts,
        top_k=top_k,
        combine=combine,
        block_size=block_size,
        init=init,
    )


def with_route(mixture: Mixture, route: Router) -> Mixture:
    """The mixture with another `route`, and an `apply` that follows it.

    `_replace(route=…)` alone would leave `apply` where it was. An `apply` of one's own is replaced:
    it is made from `route`, `select`, `experts`, `combine` and `head`.
    """
    mixture = mixture._replace(route=route)

    def apply(params, x):
        if mixture.top_k == mixture.num_experts:
            return apply_dense(mixture, params, x)
        routing = choose(route(params, x), mixture.top_k, mixture.combine)
        outputs = mixture.select(params, x, routing.experts)
        return mixture.head(params, x, combine_outputs(outputs, routing.weights))

    return with_joint(mixture._replace(apply=apply))


def with_joint(
    mixture: Mixture, run: Callable[[Params, Clips], tuple[Array, Array]] | None = None
) -> Mixture:
    """The mixture with `run` as its `Joint`; with None of one that is there, or of its parts.

    A sparse mixture has none: what it runs is not what its experts are.
    """
    if mixture.top_k < mixture.num_experts:
        return mixture._replace(joint=None)
    if run is None and _stands_for(mixture)[0]:
        run = mixture.joint.run
    if run is None:
        route, experts = mixture.route, mixture.experts

        def run(params, x):
            return route(params, x), experts(params, x)

    return mixture._replace(joint=Joint(run, *_functions(mixture)))


def run_parts(mixture: Mixture, params: Params, x: Clips) -> tuple[Array, Array, Array]:
    """The logits of a mixture, of its router and of all its experts, which run once if they can."""
    parts, whole = _stands_for(mixture)
    if parts:
        router, experts = mixture.joint.run(params, x)
    else:
        router, experts = mixture.route(params, x), mixture.experts(params, x)
    if whole:
        return combine_experts(mixture, params, x, router, experts), router, experts
    return mixture.apply(params, x), router, experts


def run_routed(mixture: Mixture, params: Params, x: Clips) -> tuple[Array, Array]:
    """The logits of a mixture and of its router, as `run_parts`; a sparse one stays sparse."""
    if _stands_for(mixture)[1]:
        return run_parts(mixture, params, x)[:2]
    return mixture.apply(params, x), mixture.route(params, x)


def _functions(mixture: Mixture) -> tuple[tuple, tuple]:
    whole = mixture.apply, mixture.head, mixture.combine, mixture.top_k
    return (mixture.route, mixture.experts), whole


def _stands_for(mixture: Mixture) -> tuple[bool, bool]:
    """Whether a mixture's `joint` computes its parts as they are now, and with them the whole."""
    if mixture.joint is None:
        return False, False
    parts, whole = _functions(mixture)
    same = parts == mixture.joint.parts
    return same, same and whole == mixture.joint.whole


def with_head(mixture: Mixture, head: Head) -> Mixture:
    """The mixture with another `head`, and an `apply` that ends with it."""
    return with_route(mixture._replace(head=head), mixture.route)


def with_training_route(mixture: Mixture, route: Router) -> Mixture:
    """The mixture whose `apply` chooses experts by another route, for training alone.

    `route` itself stays as it is, so that a router's own losses keep their labels.
    """
    return mixture._replace(apply=with_route(mixture, route).apply)


def noisy_route(route: Router, noise: Float[Array, "batch experts"]) -> Router:
    """The route with noise on its logits: noisy top-k.

    Shazeer et al. 2017, section 2.1, https://arxiv.org/abs/1701.06538, with noise of a fixed scale
    as in Riquelme et al. 2021, section 2.2, https://arxiv.org/abs/2106.05974.

    Args:
      route: the route.
      noise: one number for each clip of the batch and expert, in units of logits. The result takes
        that batch alone, whole and in its order, or several like it one behind the other.
    """

    def noisy(params, x):
        logits = route(params, x)
        repeated = jnp.tile(noise, (max(len(logits) // len(noise), 1), 1))
        chex.assert_equal_shape((logits, repeated))
        return logits + repeated.astype(logits.dtype)

    return noisy


def routers(mixture: Mixture) -> list[tuple[str, Router]]:
    """Every router of a mixture, with the part of the params that it moves with.

    One, `"router"`; of a dual model also that of F_S, which is in the part `"standard"`.
    """
    found: list[tuple[str, Router]] = [("router", mixture.route)]
    if mixture.standard is not None:
        for _, route in routers(mixture.standard):
            found.append(("standard", lambda params, x, r=route: r(params["standard"], x)))
    return found


def _part(params: Params, name: str) -> Params:
    """The params of one part, which must be there."""
    try:
        return params[name]
    except (KeyError, TypeError):
        found = f"keys {sorted(params)}" if isinstance(params, dict) else type(params).__name__
        raise ValueError(f"params: {found}; expected a dict with 'router' and 'experts'") from None


def _stacked(experts: Params, num_experts: int) -> Params:
    """The params of all experts, each leaf of which has an entry for every expert."""
    for path, leaf in jax.tree_util.tree_leaves_with_path(experts):
        shape = jnp.shape(leaf)
        if not shape or shape[0] != num_experts:
            raise ValueError(
                f"params: experts{jax.tree_util.keystr(path)} has shape {list(shape)}; expected "
                f"the first axis to be mixture.experts = {num_experts} (`stack_experts`)"
            )
    return experts


def _as_logits(output: Array, x: Array, num_experts: int) -> Float[Array, "batch experts"]:
    """A router's output, checked; integers as floats, and indices as one-hot rows."""
    output = jnp.asarray(output)
    if jnp.issubdtype(output.dtype, jnp.integer):
        if output.ndim == 1:
            output = jax.nn.one_hot(output, num_experts)
        output = output.astype(jnp.float32)
    if output.shape != (x.shape[0], num_experts):
        raise ValueError(
            f"router: an output of shape {output.shape} for {x.shape[0]} examples; expected "
            f"{(x.shape[0], num_experts)}, a logit for each of mixture.experts = {num_experts}"
        )
    return output


def stack_experts(experts: Sequence[Params]) -> Params:
    """Trees of params of single experts as one tree with a leading axis M."""
    return jax.tree.map(lambda *leaves: jnp.stack(leaves), *experts)


def apply_dense(mixture: Mixture, params: Params, x: Clips) -> Float[Array, "batch ..."]:
    """F(x) by running every expert on every clip: the reference that `apply` must equal."""
    return combine_experts(mixture, params, x, mixture.route(params, x), mixture.experts(params, x))


def combine_experts(
    mixture: Mixture,
    params: Params,
    x: Clips,
    router_logits: Float[Array, "batch ... experts"],
    expert_outputs: Float[Array, "experts batch ..."],
) -> Float[Array, "batch ..."]:
    """F from outputs of its router and of all its experts, which may have seen other inputs than x.

    `x` is what the head sees.
    """
    if mixture.top_k == mixture.num_experts and mixture.combine != "none":
        weights = jax.nn.softmax(router_logits, axis=-1)
        return mixture.head(params, x, combine_weighted(expert_outputs, weights))
    routing = choose(router_logits, mixture.top_k, mixture.combine)
    outputs = _take(jnp.moveaxis(expert_outputs, 0, 1), routing.experts)
    return mixture.head(params, x, combine_outputs(outputs, routing.weights))


def apply_soft(mixture: Mixture, params: Params, x: Clips) -> Float[Array, "batch ..."]:
    """The soft mixture Σ_i a_i(x) E_i(x) over all experts."""
    weights = jax.nn.softmax(mixture.route(params, x), axis=-1)
    return mixture.head(params, x, combine_weighted(mixture.experts(params, x), weights))


def combine_weighted(
    outputs: Float[Array, "experts batch ..."], weights: Float[Array, "batch ... experts"]
) -> Float[Array, "batch ..."]:
    """Σ_i w_i E_i(x) over all experts, w one number for an example, or for each of its classes."""
    if weights.ndim == 2:
        return combine_outputs(jnp.moveaxis(outputs, 0, 1), weights)
    return jnp.einsum("mb...k,bkm->b...k", outputs, weights.astype(outputs.dtype))


def combine_outputs(
    outputs: Float[Array, "batch k ..."], weights: Float[Array, "batch k"]
) -> Float[Array, "batch ..."]:
    """Σ_i c_i E_i(x) over the chosen experts."""
    chex.assert_equal_shape_prefix((outputs, weights), 2)
    return jnp.einsum("bk...,bk->b...", outputs, weights.astype(outputs.dtype))


def _take(outputs: Array, experts: Array) -> Array:
    """`outputs [B, M, …]` of the chosen `experts [B, k]`, as [B, k, …]."""
    return jax.vmap(lambda output, index: output[index])(outputs, experts)

"""The attack loop: every attack of the library is one call of `perturb`.

Axes: B = batch, S = steps, R = restarts.
"""

import functools
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Bool, Float, Int, Key

from jaxmoe.attacks.updates import step_sizes_of
from jaxmoe.choices import ITERATES, Iterate
from jaxmoe.threat import ThreatModel, per_example_keys

Objective = Callable[[Float[Array, "batch ..."]], Float[Array, " batch"]]
"""Per-example loss to maximise; params, clean inputs and labels are closed over.

It may have a `look` of its own, as `Expectation` has (`take_look`); a function around it hides it.
"""


class AttackResult(NamedTuple):
    """The result of an attack. Run the model again on `x_adv` to score it: no flag is kept here."""

    x_adv: Float[Array, "batch ..."]  # the iterate with the greatest loss, per example, or the last
    loss: Float[Array, " batch"]  # its loss; NaN where the last is kept, which has no look
    # Loss of each iterate, S + 1 for each restart, S where the last is kept; Square's are its best
    # at a few of its looks.
    loss_trace: Float[Array, "looks batch"]
    gradients: Int[Array, ""]  # gradients taken of each example: what the attack cost
    zero_gradient: Float[Array, " batch"]  # share of the gradients that were zero everywhere
    finite: Bool[Array, " batch"]  # whether every loss and every gradient was finite
    # With temporal momentum: each frame's step lengths in pixel units, of `x_adv`'s own attempt.
    step_sizes: Float[Array, "batch steps time"] | None = None

    def __repr__(self) -> str:
        """The shapes: the arrays themselves fill pages."""
        known = {name: value for name, value in self._asdict().items() if value is not None}
        shapes = ", ".join(f"{name} {jnp.shape(value)}" for name, value in known.items())
        return f"AttackResult({shapes})"


def perturb(
    key: Key[Array, "*batch"],
    x: Float[Array, "batch ..."],
    objective: Objective,
    threat: ThreatModel,
    update: optax.GradientTransformation,
    *,
    steps: int,
    restarts: int = 1,
    random_start: bool = True,
    iterate: Iterate = "best",
) -> AttackResult:
    """Maximises `objective` inside `threat` by projected gradient ascent, as one compiled loop.

    Each step: gradient, `update`, projection. The best iterate by loss is kept for each example; an
    n-step attack takes n gradients and n + 1 looks, so the last iterate counts too. Training is
    content with the last, as is usual, which takes n looks.

    Args:
      key: one key, folded by position in the batch, or one for each example (`example_keys`).
      x: clean inputs, pixels in `threat.bounds`.
      objective: per-example loss; its sum is differentiated, so that an example's gradient does not
        depend on the batch's size. One with a `look(x_adv, wanted)` of its own, as `Expectation`
        has, is asked by that (`take_look`).
      threat: what is allowed.
      update: optax transformation from the gradient to the step to *add*; `params` is the iterate.
      steps: gradient steps, ≥ 1.
      restarts: independent random starts, ≥ 1; the best of all is returned.
      random_start: start at a random allowed input instead of `x`.
      iterate: what is returned, the one of the greatest loss or the last.

    Raises:
      ValueError: steps or restarts below 1, several restarts without a random start or with the
        last iterate, or another word for the iterate.
    """
    if steps < 1:
        raise ValueError(f"attack.steps: {steps} is not at least 1")
    if restarts < 1 or (restarts > 1 and not random_start):
        raise ValueError(
            f"attack.restarts: {restarts} is not at least 1, or not 1 without a random start"
        )
    if iterate not in ITERATES:
        raise ValueError(f"attack.iterate: {iterate!r} is not one of {', '.join(ITERATES)}")
    if iterate == "last" and restarts > 1:
        raise ValueError(f"attack.iterate: last is not accepted with attack.restarts = {restarts}")
    keys = per_example_keys(key, x.shape[0])
    loss_dtype = jax.eval_shape(objective, x).dtype

    look = getattr(objective, "look", functools.partial(take_look, objective))
    keep_best = iterate == "best"

    def step(carry, number):
        x_adv, state, best = carry
        # The last look is the loop's too: a forward pass outside would be compiled once more.
        losses, gradient = look(x_adv, number < steps if keep_best else True)
        if keep_best:
            best = _keep_best(best, x_adv, losses)
        finite = is_finite(gradient) & jnp.isfinite(losses)
        # Before the update: frames that may not change take no share of a step's length.
        gradient = threat.mask(gradient)
        delta, state = update.update(gradient, state, x_adv)
        seen = (losses, is_zero(gradient), finite, step_sizes_of(state))
        return (threat.project(x_adv + delta, x), state, best), seen

    def attempt(restart_keys):
        start = threat.random_start(restart_keys, x) if random_start else x
        unseen = (start, jnp.full(x.shape[0], -jnp.inf, loss_dtype)) if keep_best else None
        carry = start, update.init(x), unseen
        (last, _, best), seen = jax.lax.scan(step, carry, jnp.arange(steps + keep_best))
        losses, zero, finite, sizes = seen
        return AttackResult(
            *(best or (last, jnp.full(x.shape[0], jnp.nan, loss_dtype))),
            losses,
            jnp.asarray(steps),
            jnp.mean(zero[:steps].astype(x.dtype), axis=0),
            jnp.all(finite, axis=0),
            None if sizes is None else jnp.moveaxis(sizes[:steps], 0, 1),
        )

    if restarts == 1:
        return attempt(numbered_keys(keys, 0))
    results = jax.lax.map(lambda i: attempt(numbered_keys(keys, i)), jnp.arange(restarts))
    return pick_attempts(results, jnp.argmax(results.loss, axis=0))


def take_look(
    objective: Objective, x_adv: Float[Array, "batch ..."], wanted: Array | bool
) -> tuple[Float[Array, " batch"], Float[Array, "batch ..."]]:
    """Returns the losses and the gradient of their sum, which is 0 if not `wanted`."""
    losses, pull_back = jax.vjp(objective, x_adv)

    def gradient():
        return pull_back(jnp.ones_like(losses))[0]

    if wanted is True:
        return losses, gradient()
    return losses, jax.lax.cond(wanted, gradient, lambda: jnp.zeros_like(x_adv))


def strongest_attempt(
    attempt: Callable[[Array | int], tuple[AttackResult, Bool[Array, " batch"]]], attempts: int
) -> AttackResult:
    """Returns, example by example, the attempt of the greatest loss on which the model failed.

    Where it failed on none, that is the attempt of the greatest loss of all.

    Args:
      attempt: `number -> (result, whether the model failed on its x_adv)`. Attempts run one after
        another: under `vmap`, experts would be grouped convolutions, slow on every platform.
      attempts: how many, ≥ 1.
    """
    if attempts == 1:
        return attempt(0)[0]
    results, failed = jax.lax.map(attempt, jnp.arange(attempts))
    # A larger loss says nothing across targets: an attempt that succeeded is worth more.
    counts = jnp.where(jnp.any(failed, axis=0, keepdims=True), failed, True)
    return pick_attempts(results, jnp.argmax(jnp.where(counts, results.loss, -jnp.inf), axis=0))


def pick_attempts(attempts: AttackResult, winner: Int[Array, " batch"]) -> AttackResult:
    """One result of several, stacked on a leading axis: example by example the attempt `winner`.

    Traces, costs and whether all was finite are those of all attempts together.
    """
    pick = jax.vmap(lambda candidates, i: candidates[i], in_axes=(1, 0))
    return AttackResult(
        pick(attempts.x_adv, winner),
        pick(attempts.loss, winner),
        attempts.loss_trace.reshape(-1, winner.shape[0]),
        jnp.sum(attempts.gradients),
        jnp.mean(attempts.zero_gradient, axis=0),
        jnp.all(attempts.finite, axis=0),
        None if attempts.step_sizes is None else pick(attempts.step_sizes, winner),
    )


def numbered_keys(keys: Key[Array, " batch"], number: Array | int) -> Key[Array, " batch"]:
    """Each example's key of the attempt, or of the look, called `number`."""
    return jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, number)


def where_example(
    condition: Bool[Array, " batch"], yes: Float[Array, "batch ..."], no: Float[Array, "batch ..."]
) -> Float[Array, "batch ..."]:
    """`jnp.where`, example by example."""
    return jnp.where(spread(condition, yes), yes, no)


def spread(values: Array, like: Float[Array, "batch ..."]) -> Array:
    """One value for each example, broadcastable against `like`: [B, 1, …, 1]."""
    return values.reshape(values.shape + (1,) * (like.ndim - 1))


def is_zero(gradient: Float[Array, "batch ..."]) -> Bool[Array, " batch"]:
    """Whether an example's gradient is zero everywhere."""
    return jnp.all(gradient == 0, axis=tuple(range(1, gradient.ndim)))


def is_finite(gradient: Float[Array, "batch ..."]) -> Bool[Array, " batch"]:
    """Whether every number of an example's gradient is finite."""
    return jnp.all(jnp.isfinite(gradient), axis=tuple(range(1, gradient.ndim)))


def _keep_best(best, x_adv, losses):
    best_x, best_loss = best
    better = losses > best_loss
    return where_example(better, x_adv, best_x), jnp.where(better, losses, best_loss)

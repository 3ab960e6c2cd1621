"""The training step: a fold over phases, pure per device, one gradient reduction a phase.

Axes: B = batch of this device.
"""

import dataclasses
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key, UInt8

from jaxmoe.attacks import cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture, Router, balance_loss, noisy_route, routers, with_training_route
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.optimizer import Schedule
from jaxmoe.training.phase import PARTS, Found, Params, Phase, Recipe, RecipeOptions

FROZEN_COLLECTION = "batch_stats"  # running statistics of imported weights: no gradient moves them


class Batch(NamedTuple):
    """Clips as the loader gives them, grey levels, or pixels in [0, 1]."""

    clip: UInt8[Array, "batch ..."] | Float[Array, "batch ..."]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]  # the example's own number: folds its random start


class TrainState(NamedTuple):
    """Everything that a step changes."""

    step: Int[Array, ""]  # of this stage
    params: Params
    optimizer: dict[str, optax.OptState]  # one for each part of the params


Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]


def init_state(params: Params, optimizer: optax.GradientTransformation) -> TrainState:
    """The state before the first step."""
    states = {part: optimizer.init(params[part]) for part in sorted(params)}
    return TrainState(jnp.zeros((), jnp.int32), params, states)


def make_train_step(
    mixture: Mixture,
    recipe: Recipe,
    options: RecipeOptions,
    threat: ThreatModel,
    optimizer: optax.GradientTransformation,
    learning_rate: Schedule,
    epsilon: Schedule,
    *,
    lam_share: Schedule | None = None,
    spread: Schedule | None = None,
    axis_name: str | None = None,
    only_phase: int | None = None,
) -> TrainStep:
    """One step of a recipe: `(state, batch, key) -> (state, metrics)`.

    Args:
      mixture: what is trained.
      recipe: makes the phases.
      options: their numbers.
      threat: the threat model; its ε is replaced by the schedule's.
      optimizer: without learning rate (`optimizer.adamw`); one state for each part.
      learning_rate: step → learning rate.
      epsilon: step → ε.
      lam_share: step → share of λ, in losses and in their attacks; None is all of it. L_Lip is a
        quotient of two small numbers while ε is small: its weight rises with ε.
      spread: step → share of the balance weight and of the router's noise; None is all of them.
      axis_name: of the devices, to average over; None for one device.
      only_phase: run this phase alone (J-TLAT's `order="epoch"`); None runs all, in order.

    The key is the run's: the step and each example's own index are folded in here, so a result does
    not depend on the number of devices.
    """

    made = _Step(
        mixture,
        recipe,
        options,
        threat,
        optimizer,
        learning_rate,
        epsilon,
        lam_share,
        spread,
        axis_name,
        only_phase,
    )
    return made.step


@dataclasses.dataclass(frozen=True, eq=False)
class _Step:
    """The step, with what `make_train_step` was given."""

    mixture: Mixture
    recipe: Recipe
    options: RecipeOptions
    threat: ThreatModel
    optimizer: optax.GradientTransformation
    learning_rate: Schedule
    epsilon: Schedule
    lam_share: Schedule | None
    spread: Schedule | None
    axis_name: str | None
    only_phase: int | None

    def step(
        self, state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        """Runs the phases in order, each on what the one before it left."""
        x = to_pixels(batch.clip)
        threat_now = ThreatModel(
            self.threat.norm,
            jnp.asarray(self.epsilon(state.step), jnp.float32),
            self.threat.bounds,
            self.threat.frames,
        )
        options_now = _with_lam(self.options, self.lam_share, state.step)
        share = (
            jnp.float32(1)
            if self.spread is None
            else jnp.asarray(self.spread(state.step), jnp.float32)
        )
        phases = self.recipe(self.mixture, threat_now, options_now)
        chosen = range(len(phases)) if self.only_phase is None else (self.only_phase,)
        rate = jnp.asarray(self.learning_rate(state.step), jnp.float32)
        key = jax.random.fold_in(key, state.step)
        if self.options.router_noise or self.options.attacked_route == "clean":
            keys = example_keys(jax.random.fold_in(key, len(phases)), batch.index)
            learning = _learning_mixture(self.mixture, self.options, share, keys, x)
            # In losses alone: an attack sees the router as it will be used.
            losses = [phase.loss for phase in self.recipe(learning, threat_now, options_now)]
            phases = [p._replace(loss=loss) for p, loss in zip(phases, losses, strict=True)]

        params, optimizer_states = state.params, dict(state.optimizer)
        metrics: Metrics = {}
        found = None
        for i in chosen:
            keys = example_keys(jax.random.fold_in(key, i), batch.index)
            params, optimizer_states, found, phase_metrics = self._run_phase(
                phases[i], params, optimizer_states, keys, batch, x, found, rate, share
            )
            metrics |= phase_metrics
        return TrainState(state.step + 1, params, optimizer_states), _mean(metrics, self.axis_name)

    def _run_phase(
        self, phase: Phase, params, optimizer_states, keys, batch, x, previous, rate, share
    ):
        found, y = Found(x), batch.label
        if phase.attack is not None:
            found = jax.lax.stop_gradient(phase.attack(keys, params, x, y, previous))
        found = found._replace(index=batch.index)

        def objective(moving):
            everything = {**params, **moving}
            loss = jnp.mean(phase.loss(everything, x, y, found))
            total = loss
            for part, route in routers(self.mixture):
                if part in phase.moves:
                    total = total + self._routing_loss(phase, route, everything, x, found, share)
            return total, loss

        head = {"head"} & set(params) if phase.moves >= PARTS else set()
        moving = {part: params[part] for part in sorted(phase.moves | head)}
        gradient, loss = jax.grad(objective, has_aux=True)(moving)
        gradient = _mean(_without_frozen(gradient), self.axis_name)
        new_params, new_states = dict(params), dict(optimizer_states)
        for part in moving:
            updates, new_states[part] = self.optimizer.update(
                gradient[part], optimizer_states[part], params[part]
            )
            new_params[part] = _apply(params[part], updates, rate)
            if self.mixture.num_experts > 1:
                new_params[part], new_states[part] = _keep_idle(
                    part,
                    gradient[part],
                    (new_params[part], new_states[part]),
                    (params[part], optimizer_states[part]),
                )
        metrics = {
            f"{phase.name}/loss": loss,
            f"{phase.name}/gradient_norm": optax.tree.norm(gradient),
            f"{phase.name}/finite": jnp.asarray(found.finite, jnp.float32),
        }
        return new_params, new_states, found, metrics

    def _routing_loss(self, phase: Phase, route: Router, params, x, found, share) -> Array:
        """Returns the weighted balance loss of one router, plus that of keeping its routes."""
        total = jnp.zeros((), jnp.float32)
        if not self.options.balance_weight and not self.options.route_weight:
            return total
        seen = [route(params, x)]
        if phase.attack is not None:
            seen.append(route(params, found.x_adv))
        if self.options.balance_weight:
            # Clean and attacked clips by themselves: one expert for all of either starves others.
            kind, k = self.options.balance, self.mixture.top_k
            balances = [balance_loss(logits, kind, self.axis_name, top_k=k) for logits in seen]
            total = total + self.options.balance_weight * share * sum(balances) / len(balances)
        # A phase of the router alone has this loss for its own.
        if self.options.route_weight and phase.attack is not None and phase.moves >= PARTS:
            kept = cross_entropy(seen[1], jnp.argmax(seen[0], axis=-1))
            total = total + self.options.route_weight * jnp.mean(kept)
        return total


def _learning_mixture(
    mixture: Mixture, options: RecipeOptions, share: Array, keys: Key[Array, " batch"], x: Array
) -> Mixture:
    """The mixture as the losses of one batch x see it: by the clean clips' route, or with noise."""
    route = mixture.route
    if options.attacked_route == "clean":

        def route(params, x_adv):
            del x_adv
            return mixture.route(params, x)

    if options.router_noise:
        draw = jax.vmap(lambda key: jax.random.normal(key, (mixture.num_experts,)))
        route = noisy_route(route, options.router_noise * share * draw(keys))
    return with_training_route(mixture, route)


def _with_lam(options: RecipeOptions, share: Schedule | None, step: Array) -> RecipeOptions:
    """The options with that share of λ."""
    if share is None:
        return options
    part = jnp.asarray(share(step), jnp.float32)
    attack = dataclasses.replace(options.attack, lam=options.attack.lam * part)
    return options._replace(lam=options.lam * part, attack=attack)


def is_frozen(path: tuple) -> bool:
    """Whether a leaf's path is in the collection that nothing moves."""
    return any(getattr(entry, "key", None) == FROZEN_COLLECTION for entry in path)


def _without_frozen(gradient: Params) -> Params:
    """Zeros for the frozen collection, so that it takes no share of the clipped norm."""
    return jax.tree_util.tree_map_with_path(
        lambda path, leaf: jnp.zeros_like(leaf) if is_frozen(path) else leaf, gradient
    )


def _apply(params: Params, updates: Any, rate: Array) -> Params:
    """`params − rate · updates`, the frozen collection left as it is."""

    def move(path, param, update):
        return param if is_frozen(path) else param - rate.astype(param.dtype) * update

    return jax.tree_util.tree_map_with_path(move, params, updates)


def _keep_idle(part: str, gradient: Params, new: Any, old: Any) -> Any:
    """Returns `new`, but `old` of every expert that no example of the batch reached.

    Such an expert has no gradient. Momentum and weight decay would move it all the same, further
    the longer it waits. The part `"standard"` of a dual model has experts of its own.
    """

    def is_of_experts(path, leaf) -> bool:
        inside = part == "standard" and any(getattr(e, "key", None) == "experts" for e in path)
        return (part == "experts" or inside) and leaf.ndim > 0  # a count of steps has no axis

    leaves = [
        jnp.any(leaf != 0, axis=tuple(range(1, leaf.ndim)))
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradient)
        if is_of_experts(path, leaf)
    ]
    if not leaves:
        return new
    moved = jnp.any(jnp.stack(leaves), axis=0)

    def pick(path, after, before):
        if not is_of_experts(path, after):
            return after
        return jnp.where(moved.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    return jax.tree_util.tree_map_with_path(pick, new, old)


def _mean(tree: Any, axis_name: str | None) -> Any:
    return tree if axis_name is None else jax.lax.pmean(tree, axis_name)

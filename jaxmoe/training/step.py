"""The training step: a fold over phases, pure per device, one gradient reduction a phase.

Axes: B = batch of this device.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jaxtyping import Array, Bool, Float, Int, Key, UInt8

from jaxmoe.attacks import cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture, Router, balance_loss, noisy_route, routers, with_training_route
from jaxmoe.parallel import Shards
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.optimizer import Schedule
from jaxmoe.training.phase import PARTS, Found, Params, Phase, Recipe, RecipeOptions

ONE_DEVICE = Shards()
FROZEN_COLLECTION = "batch_stats"  # running statistics of imported weights: no gradient moves them


class Batch(NamedTuple):
    """Clips as the loader gives them, grey levels, or pixels in [0, 1]."""

    clip: UInt8[Array, "batch ..."] | Float[Array, "batch ..."]
    label: Int[Array, " batch"]
    index: Int[Array, " batch"]  # the example's own number: folds its random start
    valid: Bool[Array, " batch"] | None = None  # False for one that only fills up; None is all True


def fill_up(batch: Mapping[str, Any], devices: int) -> Batch:
    """Returns the batch; with its last example repeated, and not counted, until it splits."""
    found = Batch(batch["clip"], batch["label"], batch["index"])
    count = len(found.label)
    missing = -count % devices
    if not missing or jax.process_count() > 1:  # processes do not know of each other's batches
        return found
    place = np.minimum(np.arange(count + missing), count - 1)
    filled = jax.tree.map(lambda leaf: np.asarray(leaf)[place], found)
    return filled._replace(valid=np.arange(count + missing) < count)


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
    shards: Shards = ONE_DEVICE,
    only_phase: int | None = None,
) -> TrainStep:
    """One step of a recipe: `(state, batch, key) -> (state, metrics)`.

    Args:
      mixture: what is trained; with split experts as `shard_experts` gives it.
      recipe: makes the phases.
      options: their numbers.
      threat: the threat model; its ε is replaced by the schedule's.
      optimizer: without learning rate (`optimizer.adamw`); one state for each part.
      learning_rate: step → learning rate.
      epsilon: step → ε.
      lam_share: step → share of λ, in losses and in their attacks; None is all of it. L_Lip is a
        quotient of two small numbers while ε is small: its weight rises with ε.
      spread: step → share of the balance weight and of the router's noise; None is all of them.
      shards: which part of the params a device holds, and the axes of devices to average over.
      only_phase: run this phase alone (J-TLAT's `order="epoch"`); None runs all, in order.

    The key is the run's: the step and each example's own index are folded in here, so a result does
    not depend on the number of devices.
    """

    made = _Step(
        mixture,
        recipe,
        options,
        threat,
        optax.with_extra_args_support(optimizer),
        learning_rate,
        epsilon,
        lam_share,
        spread,
        shards,
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
    optimizer: optax.GradientTransformationExtraArgs
    learning_rate: Schedule
    epsilon: Schedule
    lam_share: Schedule | None
    spread: Schedule | None
    shards: Shards
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

        state = TrainState(state.step + 1, state.params, dict(state.optimizer))
        whole, found = self.shards.gather(state.params), None
        weight = _weight(batch, self.shards)
        metrics: Metrics = {}
        for i in chosen:
            keys = example_keys(jax.random.fold_in(key, i), batch.index)
            gradient, found, loss = self._gradient(
                phases[i], whole, keys, batch, x, weight, found, share
            )
            state, moved, norm = self._update(phases[i], state, gradient, rate)
            whole = {**whole, **self.shards.gather(moved)}
            metrics |= {
                f"{phases[i].name}/loss": loss,
                f"{phases[i].name}/gradient_norm": norm,
                f"{phases[i].name}/finite": jnp.asarray(found.finite, jnp.float32),
            }
        return state, self.shards.axes.mean(metrics)

    def _gradient(self, phase: Phase, params, keys, batch, x, weight, previous, share):
        """Attacks; returns the moving parts' gradient, what was found, and the loss."""
        found, y = Found(x), batch.label
        if phase.attack is not None:
            found = jax.lax.stop_gradient(phase.attack(keys, params, x, y, previous))
        found = found._replace(index=batch.index)

        def objective(moving):
            everything = {**params, **moving}
            losses = phase.loss(everything, x, y, found)
            loss = jnp.mean(losses if weight is None else losses * weight)
            total = loss
            for part, route in routers(self.mixture):
                if part in phase.moves:
                    total = total + self._routing_loss(
                        phase, route, everything, x, found, weight, share
                    )
            return total, loss

        head = {"head"} & set(params) if phase.moves >= PARTS else set()
        moving = {part: params[part] for part in sorted(phase.moves | head)}
        gradient, loss = jax.grad(objective, has_aux=True)(moving)
        return self.shards.reduce(_without_frozen(gradient)), found, loss

    def _update(self, phase: Phase, state: TrainState, gradient: Params, rate: Array):
        """Moves the parts; returns the state, the parts that moved and the gradient's norm."""
        params, optimizer_states = dict(state.params), dict(state.optimizer)
        for part in gradient:
            own = {part: gradient[part]}
            updates, optimizer_states[part] = self.optimizer.update(
                gradient[part], optimizer_states[part], params[part], norm=self.shards.norm(own)
            )
            params[part] = _apply(params[part], updates, rate)
            if self.mixture.num_experts > 1:
                params[part], optimizer_states[part] = _keep_idle(
                    part,
                    gradient[part],
                    (params[part], optimizer_states[part]),
                    (state.params[part], state.optimizer[part]),
                    self.shards,
                )
        moved = {part: params[part] for part in gradient}
        return TrainState(state.step, params, optimizer_states), moved, self.shards.norm(gradient)

    def _routing_loss(self, phase: Phase, route: Router, params, x, found, weight, share) -> Array:
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
            names = self.shards.axes.names
            balances = [balance_loss(r, kind, names, top_k=k, weight=weight) for r in seen]
            total = total + self.options.balance_weight * share * sum(balances) / len(balances)
        # A phase of the router alone has this loss for its own.
        if self.options.route_weight and phase.attack is not None and phase.moves >= PARTS:
            kept = cross_entropy(seen[1], jnp.argmax(seen[0], axis=-1))
            kept = kept if weight is None else kept * weight
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


def _keep_idle(part: str, gradient: Params, new: Any, old: Any, shards: Shards) -> Any:
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
    moved = shards.any(jnp.any(jnp.stack(leaves), axis=0))

    def pick(path, after, before):
        if not is_of_experts(path, after):
            return after
        return jnp.where(moved.reshape(-1, *[1] * (after.ndim - 1)), after, before)

    return jax.tree_util.tree_map_with_path(pick, new, old)


def _weight(batch: Batch, shards: Shards) -> Float[Array, " batch"] | None:
    """Returns how much each example counts in a device's mean, so that devices' means are right."""
    if batch.valid is None:
        return None
    valid = batch.valid.astype(jnp.float32)
    return valid / shards.axes.mean(jnp.mean(valid))

"""The training step: a fold over phases, pure per device, one gradient reduction a phase.

Axes: B = batch of this device.
"""

import dataclasses
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from jaxmoe.attacks import cross_entropy
from jaxmoe.attacks.edge import to_pixels
from jaxmoe.mixture import Mixture, balance_loss, routers
from jaxmoe.parallel import Shards
from jaxmoe.threat import ThreatModel, example_keys
from jaxmoe.training.average import moving_average
from jaxmoe.training.learning import differs, learning_mixture
from jaxmoe.training.optimizer import decays
from jaxmoe.training.phase import PARTS, Found, Params, Phase, Recipe, RecipeOptions
from jaxmoe.training.radii import draw_share
from jaxmoe.training.schedules import Schedule
from jaxmoe.training.state import Batch, TrainState
from jaxmoe.training.update import apply_updates, keep_idle, without_frozen
from jaxmoe.training.weight_perturbation import perturb_weights

ONE_DEVICE = Shards()
_RADIUS = 1 << 20  # folds the key of a batch's ε: beyond the numbers of phases


Metrics = dict[str, Array]
TrainStep = Callable[[TrainState, Batch, Key[Array, ""]], tuple[TrainState, Metrics]]


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
    parts: int = 1,
    only_phase: int | None = None,
    weight_perturbation: float = 0.0,
    average_decay: float = 0.0,
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
      parts: a device's examples are taken in so many parts, one after the other, which takes less
        memory; the update is that of all at once.
      only_phase: run this phase alone (J-TLAT's `order="epoch"`); None runs all, in order.
      weight_perturbation: γ of AWP (`weight_perturbation.perturb_weights`), which takes one more
        gradient in every phase that attacks; 0 is none.
      average_decay: of the moving average of the params, where the state has one.

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
        parts,
        only_phase,
        weight_perturbation,
        average_decay,
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
    parts: int
    only_phase: int | None
    weight_perturbation: float
    average_decay: float

    def step(
        self, state: TrainState, batch: Batch, key: Key[Array, ""]
    ) -> tuple[TrainState, Metrics]:
        """Runs the phases in order, each on what the one before it left."""
        now = self._now(state, key)
        examples = _Examples(
            to_pixels(batch.clip), batch.label, batch.index, _weight(batch, self.shards)
        )
        if self.parts > 1:
            examples = self._cut(examples)
        phases = self.recipe(self.mixture, now.threat, now.options)
        chosen = range(len(phases)) if self.only_phase is None else (self.only_phase,)
        state = state._replace(step=state.step + 1, optimizer=dict(state.optimizer))
        whole, found = self.shards.gather(state.params), None
        metrics: Metrics = {}
        for i in chosen:
            found = self._attacked(now, i, whole, examples, found)
            gradient, loss = self._reduced_gradient(now, i, whole, examples, found)
            if self.weight_perturbation and phases[i].attack is not None:
                uphill = self.shards.gather(gradient)
                perturbed = perturb_weights(whole, uphill, self.weight_perturbation)
                gradient, _ = self._reduced_gradient(now, i, perturbed, examples, found)
            state, moved, norm = self._update(state, gradient, now.rate)
            whole = {**whole, **self.shards.gather(moved)}
            metrics |= {
                f"{phases[i].name}/loss": loss,
                f"{phases[i].name}/gradient_norm": norm,
                f"{phases[i].name}/finite": jnp.mean(jnp.asarray(found.finite, jnp.float32)),
            }
        if state.average is not None:
            numbers = state.params, state.step, self.average_decay
            state = state._replace(average=moving_average(state.average, *numbers))
        return state, self.shards.axes.mean(metrics)

    def _now(self, state: TrainState, key: Key[Array, ""]) -> "_Now":
        """Returns the numbers of this step."""
        key = jax.random.fold_in(key, state.step)
        epsilon = jnp.asarray(self.epsilon(state.step), jnp.float32)
        if state.radius_weights is not None:
            epsilon = epsilon * draw_share(jax.random.fold_in(key, _RADIUS), state.radius_weights)
        threat = self.threat
        share = 1 if self.spread is None else self.spread(state.step)
        return _Now(
            ThreatModel(threat.norm, epsilon, threat.bounds, threat.frames),
            _with_lam(self.options, self.lam_share, state.step),
            jnp.asarray(share, jnp.float32),
            jnp.asarray(self.learning_rate(state.step), jnp.float32),
            key,
        )

    def _phase(self, now: "_Now", number: int, examples: "_Examples") -> Phase:
        """Returns a phase as these examples see it."""
        phases = self.recipe(self.mixture, now.threat, now.options)
        options = self.options
        if differs(options):
            keys = example_keys(jax.random.fold_in(now.key, len(phases)), examples.index)
            learning = learning_mixture(self.mixture, options, now.share, keys, examples.x)
            # In losses alone: an attack sees the router as it will be used.
            loss = self.recipe(learning, now.threat, now.options)[number].loss
            return phases[number]._replace(loss=loss)
        return phases[number]

    def _attacked(self, now, number, params, examples, previous) -> Found:
        """Returns what a phase's attack finds, in parts where the examples come in parts."""
        if self.parts == 1:
            return self._attack(now, number, params, examples, previous)
        return jax.lax.map(
            lambda part: self._attack(now, number, params, *part), (examples, previous)
        )

    def _reduced_gradient(self, now, number, params, examples, found):
        """Returns the moving parts' gradient, the mean over all devices, and this device's loss."""
        gradient_of = self._gradient if self.parts == 1 else self._summed_gradient
        gradient, loss = gradient_of(now, number, params, examples, found)
        return self.shards.reduce(without_frozen(gradient)), loss

    def _gradient(self, now, number, params, examples, found):
        """Returns the moving parts' gradient, and the loss."""
        phase = self._phase(now, number, examples)

        def with_routing(loss, everything):
            routed = self._seen(phase, everything, examples.x, found)
            each = (self._routing_loss(phase, r, examples.weight, now.share) for r in routed)
            return sum(each, start=loss)

        return _gradient_of(phase, params, examples, found, with_routing)

    def _summed_gradient(self, now, number, params, parts, found):
        """As `_gradient`, one part of the examples after the other: the sum is that of all at once.

        The routing loss is one of all examples together. Its derivative by every logit is taken
        first, and each part then adds its own logits times theirs.
        """
        phase = self._phase(now, number, jax.tree.map(lambda leaf: leaf[0], parts))
        seen = jax.lax.map(
            lambda part: self._seen(phase, params, part[0].x, part[1]), (parts, found)
        )

        def routing_loss(seen):
            weight = None if parts.weight is None else parts.weight.reshape(-1)
            flat = jax.tree.map(lambda logits: logits.reshape(-1, *logits.shape[2:]), seen)
            return jnp.float32(0) + sum(
                self._routing_loss(phase, logits, weight, now.share) for logits in flat
            )

        slopes = jax.grad(routing_loss)(seen)

        def add(total, this):
            part, its_found, its_slopes = this

            def with_routing(loss, everything):
                own = self._seen(phase, everything, part.x, its_found)
                each = map(jnp.vdot, jax.tree.leaves(its_slopes), jax.tree.leaves(own))
                return sum(each, start=loss / self.parts)

            own_phase = self._phase(now, number, part)
            gradient, loss = _gradient_of(own_phase, params, part, its_found, with_routing)
            return jax.tree.map(jnp.add, total, gradient), loss

        nothing = jax.tree.map(jnp.zeros_like, _moving(phase, params))
        gradient, losses = jax.lax.scan(add, nothing, (parts, found, slopes))
        return gradient, jnp.mean(losses)

    def _attack(self, now, number, params, examples, previous) -> Found:
        phase, found = self._phase(now, number, examples), Found(examples.x)
        if phase.attack is not None:
            keys = example_keys(jax.random.fold_in(now.key, number), examples.index)
            found = phase.attack(keys, params, examples.x, examples.label, previous)
            found = jax.lax.stop_gradient(found)
        return found._replace(index=examples.index)

    def _cut(self, examples: "_Examples") -> "_Examples":
        """The examples in parts, [A, B / A, …]."""
        if len(examples.index) % self.parts:
            raise ValueError(
                f"optimizer.accumulate: {self.parts} does not divide the {len(examples.index)} "
                "examples of a device"
            )
        return jax.tree.map(lambda leaf: leaf.reshape(self.parts, -1, *leaf.shape[1:]), examples)

    def _update(self, state: TrainState, gradient: Params, rate: Array):
        """Moves the parts; returns the state, the parts that moved and the gradient's norm."""
        params, optimizer_states = dict(state.params), dict(state.optimizer)
        norms, acts = self.shards.norms(gradient), decays({p: params[p] for p in gradient})
        for part in gradient:
            updates, optimizer_states[part] = self.optimizer.update(
                gradient[part],
                optimizer_states[part],
                params[part],
                norms=norms[part],
                acts=acts[part],
            )
            params[part] = apply_updates(params[part], updates, rate)
            if self.mixture.num_experts > 1:
                params[part], optimizer_states[part] = keep_idle(
                    part,
                    gradient[part],
                    (params[part], optimizer_states[part]),
                    (state.params[part], state.optimizer[part]),
                    self.shards,
                )
        moved = {part: params[part] for part in gradient}
        state = state._replace(params=params, optimizer=optimizer_states)
        return state, moved, self.shards.norm(gradient)

    def _seen(self, phase: Phase, params, x, found) -> list[list[Array]]:
        """Returns logits of every router that moves: of the clean inputs, and of attacked ones."""
        inputs = [x] if phase.attack is None else [x, found.x_adv]
        if not self.options.balance_weight and not self.options.route_weight:
            return []
        return [
            [route(params, each) for each in inputs]
            for part, route in routers(self.mixture)
            if part in phase.moves
        ]

    def _routing_loss(self, phase: Phase, seen: list[Array], weight, share) -> Array:
        """Returns the weighted balance loss of one router, plus that of keeping its routes."""
        total = jnp.zeros((), jnp.float32)
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


class _Now(NamedTuple):
    """The numbers of one step."""

    threat: ThreatModel
    options: RecipeOptions
    share: Array  # of the balance weight and of the router's noise
    rate: Array  # of learning
    key: Key[Array, ""]


class _Examples(NamedTuple):
    """Examples of one device, or a part of them."""

    x: Float[Array, "batch ..."]
    label: Int[Array, "batch ..."]
    index: Int[Array, " batch"]
    weight: Float[Array, " batch"] | None


def _moving(phase: Phase, params: Params) -> Params:
    head = {"head"} & set(params) if phase.moves >= PARTS else set()
    return {part: params[part] for part in sorted(phase.moves | head)}


def _gradient_of(
    phase: Phase,
    params: Params,
    examples: _Examples,
    found: Found,
    with_routing: Callable[[Array, Params], Array],
) -> tuple[Params, Array]:
    """Returns the gradient of what `with_routing` makes of the mean loss, and the mean loss."""

    def objective(moving):
        everything = {**params, **moving}
        losses = phase.loss(everything, examples.x, examples.label, found)
        loss = jnp.mean(losses if examples.weight is None else losses * examples.weight)
        return with_routing(loss, everything), loss

    return jax.grad(objective, has_aux=True)(_moving(phase, params))


def _with_lam(options: RecipeOptions, share: Schedule | None, step: Array) -> RecipeOptions:
    """The options with that share of λ."""
    if share is None:
        return options
    part = jnp.asarray(share(step), jnp.float32)
    attack = dataclasses.replace(options.attack, lam=options.attack.lam * part)
    return options._replace(lam=options.lam * part, attack=attack)


def _weight(batch: Batch, shards: Shards) -> Float[Array, " batch"] | None:
    """Returns how much each example counts in a device's mean, so that devices' means are right."""
    if batch.valid is None:
        return None
    valid = batch.valid.astype(jnp.float32)
    return valid / shards.axes.mean(jnp.mean(valid))

"""Attacks along time against NumPy: shifts written out, frames and offsets found by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings, build_attack
from jaxmoe.threat import ThreatModel, example_keys
from tests.night import at_night

FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
NAMES = ("tt", "sparse", "flicker")
B, T, H, W, C, K = 4, 5, 2, 3, 2, 3
RNG = np.random.default_rng(0)
X, Y = RNG.uniform(0.3, 0.7, (B, T, H, W, C)), np.array([0, 1, 2, 0])
# Frames differ in how much they matter, and not by their place.
SCALES = np.array([0.3, 2.0, 0.5, 1.5, 1.0]).reshape(T, 1, 1, 1, 1)
WEIGHTS = 0.3 * (SCALES * RNG.normal(size=(T, H, W, C, K))).reshape(-1, K)


FRAMES = np.array([True, False, True, True, False])
CLIP_FRAMES = RNG.uniform(size=(B, T)) < 0.6  # other frames of each clip


def classify(params, x):
    return x.reshape(x.shape[0], -1) @ params


def run(name, threat, x=X, y=Y, weights=WEIGHTS, keys=None, **settings):
    """The attack `name` on the linear classifier, to NumPy."""
    keys = jax.random.key(0) if keys is None else keys
    weights, x = jnp.asarray(weights, jnp.float32), jnp.asarray(x, jnp.float32)
    result = compiled(name, weights, keys, x, jnp.asarray(y), threat, AttackSettings(**settings))
    return jax.tree.map(np.asarray, result)


@functools.partial(jax.jit, static_argnums=0, compiler_options=FAST)
def compiled(name, weights, keys, x, y, threat, settings):
    return build_attack(name, classify, threat, settings)(keys, weights, x, y)


def loss_and_gradient(x, y=Y, weights=WEIGHTS):
    """Cross-entropy of the linear classifier and its gradient in closed form."""
    logits = x.reshape(len(x), -1) @ weights
    powers = np.exp(logits)
    error = powers / powers.sum(1, keepdims=True) - np.eye(weights.shape[1])[y]
    losses = np.log(powers.sum(1)) - logits[np.arange(len(x)), y]
    return losses, (error @ weights.T).reshape(x.shape)


def l2(x):
    return np.sqrt((x**2).sum(tuple(range(1, x.ndim)), keepdims=True))


@pytest.mark.parametrize("norm", ["linf", "l2"])
@pytest.mark.parametrize("shifts", [2, 7])  # 7 is more than the clip has frames
def test_temporal_translation_equals_the_gradients_of_shifted_clips(norm, shifts):
    epsilon, steps, decay, alpha = 0.1, 4, 0.8, 0.4
    threat = ThreatModel(norm, epsilon)
    got = run("tt", threat, shifts=shifts, steps=steps, decay=decay, alpha=alpha)

    places = np.linspace(-3, 3, 2 * shifts + 1)
    weights = np.exp(-(places**2) / 2) / np.exp(-(places**2) / 2).sum()
    x_adv, velocity, trace = X, np.zeros_like(X), []
    for step in range(steps + 1):
        losses, gradient = np.zeros(B), np.zeros_like(X)
        for shift, weight in zip(range(-shifts, shifts + 1), weights, strict=True):
            loss, slope = loss_and_gradient(np.roll(x_adv, shift, axis=1))
            losses += weight * loss
            gradient += weight * np.roll(slope, -shift, axis=1)
        trace.append(losses)
        if step == steps:
            break
        length = np.abs(gradient).sum((1, 2, 3, 4), keepdims=True)
        velocity = decay * velocity + gradient / length
        direction = np.sign(velocity) if norm == "linf" else velocity / l2(velocity)
        delta = x_adv + alpha * epsilon * direction - X
        if norm == "linf":
            delta = np.clip(delta, -epsilon, epsilon)
        else:
            delta *= np.minimum(1, epsilon / l2(delta))
        x_adv = X + delta
    np.testing.assert_allclose(got.loss_trace, trace, rtol=1e-4)
    np.testing.assert_allclose(got.loss, np.max(trace, axis=0), rtol=1e-4)
    assert got.gradients == steps * (2 * shifts + 1)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_no_shifts_are_mi_fgsm_to_the_bit(norm):
    threat = ThreatModel(norm, 0.1)
    got, want = run("tt", threat, shifts=0), run("mi-fgsm", threat)
    jax.tree.map(np.testing.assert_array_equal, got, want)
    assert not np.array_equal(run("tt", threat, shifts=1).x_adv, want.x_adv)


def most_sensitive(count, allowed=None):
    """The `count` frames with the longest clean gradient, as a mask [B, T]."""
    allowed = np.broadcast_to(np.ones(T, bool) if allowed is None else allowed, (B, T))
    mask = np.zeros((B, T), bool)
    for i, clip in enumerate(loss_and_gradient(X)[1]):
        order = sorted(range(T), key=lambda t: -np.linalg.norm(clip[t]))
        mask[i, [t for t in order if allowed[i, t]][:count]] = True
    return mask


@pytest.mark.parametrize("norm", ["linf", at_night("l2")])
@pytest.mark.parametrize(
    ("count", "allowed"),
    [
        *((1, None), (2, CLIP_FRAMES)),
        *(at_night(9, None), at_night(2, FRAMES), at_night(9, CLIP_FRAMES)),
    ],
)
def test_sparse_frames_is_pgd_on_the_frames_picked_by_hand(norm, allowed, count):
    frames = None if allowed is None else jnp.asarray(allowed)
    numbers = {"steps": 3, "restarts": 2}
    got = run("sparse", ThreatModel(norm, 0.2, frames=frames), sparse_frames=count, **numbers)
    mask = most_sensitive(count, allowed)
    want = run("pgd", ThreatModel(norm, 0.2, frames=jnp.asarray(mask)), **numbers)
    np.testing.assert_allclose(got.x_adv, want.x_adv, atol=1e-6)
    np.testing.assert_allclose(got.loss_trace, want.loss_trace, rtol=1e-5)
    changed = (got.x_adv != np.float32(X)).any((2, 3, 4))
    np.testing.assert_array_equal(changed, mask)
    assert got.gradients == 2 * 3 + 1


def test_frames_are_told_apart_where_squares_of_gradients_underflow():
    got = run("sparse", ThreatModel("linf", 0.1), weights=1e-25 * WEIGHTS, sparse_frames=1)
    # Logits are next to 0, where the gradient's direction is that of uniform probabilities.
    powers = np.full((B, K), 1 / K) - np.eye(K)[Y]
    gradient = (powers @ WEIGHTS.T).reshape(B, T, -1)
    want = np.argmax(np.linalg.norm(gradient, axis=2), axis=1)
    changed = (got.x_adv != np.float32(X)).any((2, 3, 4))
    np.testing.assert_array_equal(changed, np.eye(T, dtype=bool)[want])


def test_where_the_gradient_is_zero_allowed_frames_are_taken_all_the_same():
    threat = ThreatModel("linf", 0.1, frames=jnp.array([False, True, False, True, True]))
    got = run("sparse", threat, weights=0 * WEIGHTS, sparse_frames=2, steps=3)
    changed = (got.x_adv != np.float32(X)).any((2, 3, 4))
    np.testing.assert_array_equal(changed.sum(1), 2)
    np.testing.assert_allclose(got.zero_gradient, 1, rtol=1e-6)


def test_a_clean_gradient_that_is_not_finite_is_reported():
    def classify_roots(params, x):
        return classify(params, jnp.sqrt(jnp.abs(x - 0.5)))

    x = np.float32(X)
    x[1, 0, 0, 0, 0] = 0.5  # where the root has no slope, and no later iterate is
    threat, numbers = ThreatModel("linf", 0.1), AttackSettings(steps=2, sparse_frames=T)
    attack = jax.jit(build_attack("sparse", classify_roots, threat, numbers))
    got = attack(jax.random.key(0), jnp.asarray(WEIGHTS, jnp.float32), x, jnp.asarray(Y))
    np.testing.assert_array_equal(got.finite, [True, False, True, True])
    assert np.isfinite(got.loss_trace).all()


@pytest.mark.parametrize(
    ("norm", "frames"),
    [("linf", None), ("l2", FRAMES), at_night("linf", FRAMES), at_night("l2", None)],
)
def test_flickering_finds_the_best_offset_of_a_linear_classifier(norm, frames):
    """Between two classes the gradient's direction never changes: the best offset is known."""
    epsilon, weights, y = 0.1, WEIGHTS[:, :2], np.array([0, 1, 1, 0])
    threat = ThreatModel(norm, epsilon, frames=None if frames is None else jnp.asarray(frames))
    got = run("flicker", threat, y=y, weights=weights, steps=30, alpha=1.0, restarts=2)
    away = (weights[:, 1] - weights[:, 0]).reshape(1, T, H, W, C).sum((2, 3), keepdims=True)
    direction = np.where(y == 0, 1, -1).reshape(B, 1, 1, 1, 1) * away
    if frames is not None:
        direction = direction * np.reshape(frames, (1, T, 1, 1, 1))
    if norm == "linf":
        offset = epsilon * np.sign(direction)
    else:
        offset = epsilon / np.sqrt(H * W) * direction / l2(direction)
    # Near its maximum the loss is the same float32 for many an offset of the right length.
    np.testing.assert_allclose(got.x_adv, X + offset, atol=1e-3)
    np.testing.assert_allclose(got.loss, loss_and_gradient(X + offset, y, weights)[0], rtol=1e-4)
    np.testing.assert_allclose(threat.size(got.x_adv, np.float32(X)), epsilon, rtol=1e-3)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_flickering_is_one_offset_for_each_frame_clipped_to_the_box(norm):
    epsilon = 0.3 if norm == "linf" else 1.0
    x = np.random.default_rng(1).uniform(0, 1, X.shape).astype(np.float32)
    x[:, :, 0, 0] = 0.5  # a pixel that no offset takes to the box
    x[0, 0, 1, 1] = 1.2  # one that was outside when clean
    threat = ThreatModel(norm, epsilon)
    got = run("flicker", threat, x=x, restarts=2)
    offset = (got.x_adv - x)[:, :, :1, :1]
    moved = np.clip(x + offset, np.minimum(x, 0), np.maximum(x, 1))
    np.testing.assert_allclose(got.x_adv, moved, atol=1e-6)
    assert ((got.x_adv == 0) | (got.x_adv == 1)).any()
    assert (threat.size(got.x_adv, x) <= epsilon + 1e-6).all()
    bound = np.abs(offset).max() if norm == "linf" else np.sqrt(H * W) * l2(offset).max()
    assert bound <= epsilon + 1e-5
    np.testing.assert_allclose(got.loss, loss_and_gradient(got.x_adv)[0], rtol=1e-4)


def test_flickering_starts_at_random():
    one, other = (
        run("flicker", ThreatModel(), keys=jax.random.key(seed), steps=1, alpha=0.01)
        for seed in (0, 1)
    )
    assert not np.allclose(one.x_adv, other.x_adv, atol=1e-3)
    assert (np.ptp(one.x_adv - X, axis=(2, 3)) < 1e-6).all()
    assert (np.ptp(one.x_adv - X, axis=1) > 1e-3).all()


@pytest.mark.parametrize("name", [at_night(n) if n == "flicker" else n for n in NAMES])
def test_a_clip_does_not_depend_on_its_neighbours(name):
    threat, keys = ThreatModel("l2", 0.5), example_keys(jax.random.key(0), jnp.arange(B))
    together = run(name, threat, keys=keys, sparse_frames=2)
    for i in range(B):
        one = slice(i, i + 1)
        alone = run(name, threat, x=X[one], y=Y[one], keys=keys[one], sparse_frames=2)
        np.testing.assert_allclose(together.x_adv[one], alone.x_adv, atol=1e-6)


@pytest.mark.parametrize("norm", [at_night("linf"), "l2"])
@pytest.mark.parametrize("name", [at_night(n) if n == "flicker" else n for n in NAMES])
def test_a_grid_of_epsilon_is_a_vmap(name, norm):
    weights, x = jnp.asarray(WEIGHTS, jnp.float32), jnp.asarray(X, jnp.float32)

    def attack(epsilon):
        settings = AttackSettings(steps=3, restarts=1 if name == "tt" else 2, sparse_frames=2)
        built = build_attack(name, classify, ThreatModel(norm, epsilon), settings)
        return built(jax.random.key(0), weights, x, jnp.asarray(Y))

    jit = functools.partial(jax.jit, compiler_options=FAST)
    grid = jnp.array([0.0, 0.02, 0.4])
    alone, together = jit(attack), jit(jax.vmap(attack))(grid)
    np.testing.assert_array_equal(together.x_adv[0], x)
    assert not np.allclose(together.x_adv[1], together.x_adv[2], atol=1e-2)
    for i, epsilon in enumerate(grid):
        np.testing.assert_allclose(together.x_adv[i], alone(epsilon).x_adv, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "message"),
    [
        ("tt", (4, 6), r"temporal translation: no frames in inputs of shape \(4, 6\)"),
        ("sparse", (4, 6), r"sparse frames: no frames in inputs of shape \(4, 6\)"),
        ("flicker", (4, 2, 3, 1), r"flicker: .*\(4, 2, 3, 1\), not \[B, T, H, W, C\]"),
    ],
)
def test_inputs_without_frames_are_refused(name, shape, message):
    with pytest.raises(ValueError, match=message):
        run(name, ThreatModel(), x=np.full(shape, 0.5), weights=np.ones((6, K)))

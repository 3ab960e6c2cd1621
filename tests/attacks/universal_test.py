"""Universal perturbations against closed forms on a linear classifier."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import (
    AttackSettings,
    apply_universal,
    cross_entropy,
    fit_universal,
    universal_attack,
    universal_step,
)
from jaxmoe.threat import ThreatModel

EPSILON, K = 8 / 255, 3
RNG = np.random.default_rng(0)
SHAPE = (6, 2, 4, 4, 1)
X = RNG.uniform(0.2, 0.8, SHAPE).astype(np.float32)
Y = np.array([0, 1, 2, 1, 0, 2], np.int32)
WEIGHTS = (0.2 * RNG.normal(size=(32, K))).astype(np.float32)
KEY = jax.random.key(0)
# A whole step of 2 ε: from anywhere in the ball to the end in one.
LONG = AttackSettings(alpha=2.0)


def classify(params, x):
    return x.reshape(x.shape[0], -1) @ params


def batches(x=X, y=Y, valid=None, size=None):
    valid, size = np.ones(len(x), bool) if valid is None else valid, size or len(x)

    def factory():
        for start in range(0, len(x), size):
            part = slice(start, start + size)
            yield {"clip": x[part], "label": y[part], "valid": valid[part]}

    return factory


def fit(data=None, model=classify, params=WEIGHTS, threat=None, settings=LONG, **options):
    threat = threat or ThreatModel("linf", EPSILON)
    options = {"epochs": 1} | options
    data = data or batches()
    return np.asarray(
        fit_universal(KEY, model, params, data, threat=threat, settings=settings, **options)
    )


def gradients(x=X, y=Y):
    """Of CE of each example in closed form, in float64."""
    logits = x.reshape(len(x), -1).astype(np.float64) @ WEIGHTS.astype(np.float64)
    powers = np.exp(logits)
    error = powers / powers.sum(1, keepdims=True) - np.eye(K)[y]
    return (error @ WEIGHTS.T).reshape(x.shape)


@functools.partial(jax.jit, static_argnums=(0, 1))
def take_step(model, settings, threat, delta, params, x, y, valid):
    return universal_step(model, threat, settings)(delta, params, x, y, valid)


def one_step(x=X, y=Y, *, threat=None, settings=LONG, model=classify, params=WEIGHTS, delta=None):
    threat = threat or ThreatModel("linf", EPSILON)
    delta = np.zeros((1, *SHAPE[1:]), np.float32) if delta is None else delta
    valid = np.ones(len(x), bool)
    return np.asarray(take_step(model, settings, threat, delta, params, x, y, valid))


def test_a_step_from_nowhere_is_the_sign_of_the_mean_gradient():
    expected = EPSILON * np.sign(gradients().mean(axis=0, keepdims=True))
    np.testing.assert_allclose(one_step(), expected, rtol=1e-6)
    shorter = one_step(settings=AttackSettings(alpha=0.25))
    np.testing.assert_allclose(shorter, expected / 4, rtol=1e-6)


def test_l2_is_the_direction_of_the_summed_gradient():
    total = gradients().sum(axis=0, keepdims=True)
    found = one_step(threat=ThreatModel("l2", 1e-3))
    expected = 1e-3 * total / np.linalg.norm(total)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-8)


def test_a_fit_ends_where_the_mean_gradient_points():
    mean = gradients().mean(axis=0, keepdims=True)
    clear = np.abs(mean) > 0.05 * np.abs(mean).max()  # a δ in the ball does not turn these
    assert clear.mean() > 0.8
    for options in ({}, {"epochs": 3}, {"epochs": 20, "settings": AttackSettings()}):
        found = fit(**options)
        np.testing.assert_allclose(found[clear], EPSILON * np.sign(mean[clear]), rtol=1e-6)


def test_steps_shrink_from_pass_to_pass():
    short = AttackSettings(alpha=0.01)
    sign = np.sign(gradients().mean(axis=0, keepdims=True))
    one, two, four = (fit(settings=short, epochs=epochs) for epochs in (1, 2, 4))
    np.testing.assert_allclose(two - one, 0.5 * 0.01 * EPSILON * sign, atol=1e-8)
    np.testing.assert_allclose(four - two, (2.5 - 1.5) * 0.01 * EPSILON * sign, atol=1e-8)


def test_steps_of_no_length_go_nowhere():
    np.testing.assert_array_equal(fit(settings=AttackSettings(alpha=0.0)), 0)


def test_one_for_each_class_sees_its_own_clips_alone():
    found = one_step(delta=np.zeros((K, *SHAPE[1:]), np.float32))
    for label in range(K):
        expected = EPSILON * np.sign(gradients()[label == Y].mean(axis=0))
        np.testing.assert_allclose(found[label], expected, rtol=1e-6)
    assert np.any(found[0] != found[1])
    assert fit(num_classes=K).shape == (K, *SHAPE[1:])


def test_a_class_without_clips_stays():
    before = fit(num_classes=K)
    after = one_step(X[:1], Y[:1], delta=-before)
    np.testing.assert_array_equal(after[1:], -before[1:])
    assert np.any(after[0] != -before[0])


def test_padding_has_no_say():
    valid = np.arange(6) < 4
    whole = fit(batches(X[:4], Y[:4]), num_classes=K)
    for padding in (X[4:], np.full_like(X[4:], np.nan)):
        padded = np.concatenate([X[:4], padding])
        np.testing.assert_array_equal(fit(batches(padded, Y, valid), num_classes=K), whole)
    assert np.any(fit(num_classes=K) != whole)


def test_few_clips_with_huge_losses_do_not_dominate():
    # Five clips are right and want to be darker; one is wrong with a loss of 9.6, wants to be
    # brighter, and its gradient is far longer than their sum.
    def two_classes(scale, x):
        value = scale * jnp.sum(x - 0.5, axis=(1, 2, 3, 4))
        return jnp.stack([value, -value], axis=-1)

    x = np.full(SHAPE, 0.65, np.float32)
    y = np.array([0, 0, 0, 0, 0, 1], np.int32)

    def direction(x):
        return one_step(x, y, model=two_classes, params=jnp.float32(1.0)) / EPSILON

    np.testing.assert_allclose(direction(x), -1, rtol=1e-6)
    closer = np.full(SHAPE, 0.6, np.float32)  # of loss 6.4, below the limit: now it decides
    np.testing.assert_allclose(direction(closer), 1, rtol=1e-6)


def test_a_pixel_at_the_edge_of_the_box_has_no_say_beyond_it():
    def brightness(scale, x):
        value = scale * jnp.sum(x, axis=(1, 2, 3, 4))
        return jnp.stack([value, -value], axis=-1)

    # Two clips want every pixel brighter, and are white; one wants them darker, and can be.
    x = np.stack([np.ones(SHAPE[1:]), np.ones(SHAPE[1:]), np.zeros(SHAPE[1:]) + 0.01])
    x, y = x.astype(np.float32), np.array([1, 1, 0], np.int32)
    delta = np.full((1, *SHAPE[1:]), EPSILON / 2, np.float32)
    found = one_step(x, y, model=brightness, params=jnp.float32(0.1), delta=delta)
    assert np.all(found < delta)


def test_frames_that_may_not_change_do_not():
    frames = np.array([True, False])
    for norm in ("linf", "l2"):
        threat = ThreatModel(norm, EPSILON, frames=frames)
        found = fit(threat=threat, settings=AttackSettings(), epochs=2)
        assert np.all(found[:, 1] == 0)
        assert np.all(found[:, 0] != 0)


def test_frames_that_may_not_change_take_no_share_of_a_step():
    threat = ThreatModel("l2", EPSILON, frames=np.array([True, False]))
    found = one_step(threat=threat, settings=AttackSettings(alpha=0.1))
    assert np.linalg.norm(found) == pytest.approx(0.1 * EPSILON, rel=1e-4)


@pytest.mark.parametrize("norm", ["linf", "l2"])
def test_what_is_applied_is_in_the_ball_and_the_box(norm):
    threat = ThreatModel(norm, EPSILON)
    delta = fit(threat=threat, settings=AttackSettings(), epochs=4, num_classes=K)
    x = np.where(X > 0.7, 1, np.where(X < 0.3, 0, X)).astype(np.float32)
    x_adv = np.asarray(apply_universal(jnp.asarray(delta), threat, x, Y))
    assert np.all(threat.size(x_adv, x) <= EPSILON + 1e-6)
    assert (x_adv.min(), x_adv.max()) == (0, 1)
    inside = (x > 0) & (x < 1)
    np.testing.assert_allclose((x_adv - x)[inside], delta[Y][inside], atol=1e-6)


def test_it_beats_noise_on_a_mixture(small):
    s = small()
    model, x, y = s.mixture(), jnp.asarray(s.x, jnp.float32), jnp.asarray(s.y, jnp.int32)
    params = jax.tree.map(lambda p: jnp.asarray(p, jnp.float32), s.params)
    threat = ThreatModel("linf", 0.1)
    data = batches(np.asarray(x), np.asarray(y), size=2)
    delta = fit(data, model, params, threat, AttackSettings(), epochs=8)

    @jax.jit
    def losses(delta):
        both = apply_universal(delta, threat, x, y), threat.random_start(KEY, x)
        return [jnp.sum(cross_entropy(model.apply(params, x_adv), y)) for x_adv in both]

    universal, noise = losses(delta)
    assert universal > 1.2 * noise


def test_a_grid_of_epsilons_compiles_once():
    traces = []

    def counted(params, x):
        traces.append(x.shape)
        return classify(params, x)

    for epsilon in (1 / 255, 2 / 255, 4 / 255):
        for alpha in (0.1, 0.25):
            threat, settings = ThreatModel("linf", epsilon), AttackSettings(alpha=alpha)
            fit(model=counted, threat=threat, settings=settings, epochs=2)
    assert len(traces) == 2  # one for the shape of the logits


@pytest.mark.parametrize("limit", [None, K])
def test_a_gradient_that_is_not_finite_is_an_error(limit):
    def broken(params, x):
        # √max(v − ½, 0) has the value 0 and the gradient 0 · ∞ below ½.
        mean = jnp.mean(x, axis=(1, 2, 3, 4))[:, None]
        return classify(params, x) + jnp.sqrt(jnp.maximum(mean - 0.9, 0))

    with pytest.raises(FloatingPointError, match="not finite in step 1"):
        fit(model=broken, num_classes=limit)


def test_the_attack_adds_it_and_counts_no_gradient():
    threat = ThreatModel("linf", EPSILON)
    delta = jnp.asarray(fit(num_classes=K))
    result = universal_attack(delta, threat)(KEY, None, jnp.asarray(X), jnp.asarray(Y))
    np.testing.assert_array_equal(result.x_adv, apply_universal(delta, threat, X, jnp.asarray(Y)))
    assert int(result.gradients) == 0
    assert np.all(result.finite)
    assert result.loss_trace.shape == (1, 6)


def test_impossible_requests_are_one_line():
    every = ThreatModel("linf", jnp.full(6, EPSILON))
    frames = ThreatModel("linf", EPSILON, frames=np.ones((6, 2), bool))
    for options, said in (
        ({"epochs": 0}, "epochs: 0"),
        ({"data": batches(valid=np.zeros(6, bool))}, "no valid example"),
        ({"data": lambda: []}, "no valid example"),
        ({"data": batches((X * 255).astype(np.int32))}, "pixels of int32; expected uint8, or fl"),
        ({"data": batches(X * 255)}, "expected floats in .0, 1., such as x / 255"),
        ({"data": batches(y=np.eye(3, dtype=int)[Y])}, "look one-hot"),
        ({"data": batches(y=Y + 1)}, "label: 1 to 3 .* look numbered from 1"),
        ({"num_classes": 2}, "label: 0 to 2 on a model of 2 classes; expected 0 to 1"),
        ({"threat": every}, "threat.epsilon: shape"),
        ({"threat": frames}, "threat.frames: shape"),
    ):
        with pytest.raises(ValueError, match=said):
            fit(**options)
    dense = universal_step(classify, ThreatModel("linf", EPSILON))
    with pytest.raises(ValueError, match="names no class"):
        dense(jnp.zeros((K, *SHAPE[1:])), WEIGHTS, X, np.zeros((6, 4), np.int32), np.ones(6, bool))


def test_grey_levels_and_half_precision_are_the_pixels_that_they_stand_for():
    levels = np.round(X * 255).astype(np.uint8)
    plain = fit(batches((levels / np.float32(255)).astype(np.float32)))
    np.testing.assert_allclose(fit(batches(levels)), plain, atol=1e-7)
    half = X.astype(np.float16)
    np.testing.assert_array_equal(fit(batches(half)), fit(batches(half.astype(np.float32))))
    threat = ThreatModel("linf", EPSILON)
    moved = apply_universal(plain, threat, half, Y)
    assert moved.dtype == np.float32
    assert np.abs(np.asarray(moved) - half.astype(np.float32)).max() <= EPSILON + 1e-7

"""What a person hands to an attack: any width of floats, labels, keys, axes, models."""

import re

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoe.attacks import ATTACKS, AttackSettings, build_attack
from jaxmoe.attacks.edge import check_axes
from jaxmoe.mixture import from_functions
from jaxmoe.threat import ThreatModel
from tests.night import at_night

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=2, restarts=2, queries=3, targets=2, draws=2, shifts=1)
SHAPE = (3, 4, 2, 2, 3)
KEY = jax.random.key(0)


def flat(x):
    return x.reshape(len(x), -1)


def linear(params, x):
    """Computes, and answers, in the width of its params."""
    return flat(x).astype(params.dtype) @ params


MIXTURE = from_functions(linear, linear, num_experts=2, block_size=1)


def draw_params(shape=SHAPE, classes=5, seed=0):
    rng = np.random.default_rng(seed)
    size = int(np.prod(shape[1:]))
    return {"router": rng.normal(size=(size, 2)), "experts": rng.normal(size=(2, size, classes))}


def draw_pixels(shape=SHAPE, seed=1):
    return np.random.default_rng(seed).random(shape)


WIDTHS = [(name, width, width) for name in ATTACKS for width in ("bfloat16", "float64")] + [
    (name, *widths)
    for name in ("j-tlga", "apgd-t", "fab", "square", "tt")
    for widths in (("float16", "float16"), ("float32", "float64"), ("float64", "float32"))
]


@pytest.mark.parametrize(("name", "pixels", "params"), WIDTHS)
def test_every_attack_takes_pixels_and_models_of_any_width(name, pixels, params):
    attack = build_attack(name, MIXTURE, ThreatModel("linf", EPSILON), SETTINGS)
    wide = jnp.float64 if "float64" in (pixels, params) else jnp.float32
    with jax.enable_x64("float64" in (pixels, params)):
        x = jax.ShapeDtypeStruct(SHAPE, pixels)
        y = jax.ShapeDtypeStruct(SHAPE[:1], jnp.int32)
        weights = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, params), draw_params())
        result = jax.eval_shape(attack, KEY, weights, x, y)
        assert result.x_adv.shape == SHAPE
        assert result.x_adv.dtype == (jnp.float64 if pixels == "float64" else jnp.float32)
        assert result.loss.dtype == result.loss_trace.dtype == wide


@pytest.mark.parametrize(
    ("norm", "width"),
    [
        *(("linf", "float16"), ("l2", "bfloat16")),
        *(at_night("l2", "float16"), at_night("linf", "bfloat16")),
    ],
)
def test_square_stays_in_the_ball_around_half_precision_pixels(norm, width):
    x = jnp.asarray(draw_pixels((3, 5, 5, 1)), width)
    threat = ThreatModel(norm, EPSILON)
    attack = build_attack("square", linear, threat, AttackSettings(queries=20))
    result = attack(KEY, jnp.asarray(draw_pixels((25, 2)), width), x, jnp.zeros(3, int))
    exact, found = np.asarray(x, np.float64), np.asarray(result.x_adv, np.float64)
    assert (np.abs(found - exact).max() if norm == "linf" else 0) <= EPSILON + 1e-7
    lengths = np.sqrt(np.square(found - exact).sum((1, 2, 3)))
    assert norm == "linf" or lengths.max() <= EPSILON + 1e-7
    assert lengths.min() > 0


X = draw_pixels((3, 2, 4), seed=2).astype(np.float32)
WEIGHTS = draw_pixels((8, 5), seed=3).astype(np.float32)
Y = np.arange(3)
PGD = build_attack("pgd", linear, ThreatModel("linf", EPSILON), AttackSettings(steps=1))


def found(key=0, params=WEIGHTS, x=X, y=Y):
    return PGD(key, params, x, y)


def test_a_seed_a_legacy_key_and_one_for_each_example_are_keys():
    typed = np.asarray(found(jax.random.key(7)).x_adv)
    for key in (7, np.int64(7), jax.random.PRNGKey(7), np.asarray(jax.random.PRNGKey(7))):
        np.testing.assert_array_equal(found(key).x_adv, typed)
    own = jax.random.split(jax.random.key(7), 3)
    each = np.asarray(found(own).x_adv)
    np.testing.assert_array_equal(found(jax.random.key_data(own)).x_adv, each)


def test_grey_levels_narrow_labels_and_lists_are_what_they_stand_for():
    levels = np.round(X * 255).astype(np.uint8)
    plain = np.asarray(found(x=levels.astype(np.float32) / np.float32(255)).x_adv)
    for x, y in ((levels, Y.astype(np.uint8)), (levels, Y.tolist()), (levels, Y.astype(np.int64))):
        np.testing.assert_allclose(found(x=x, y=y).x_adv, plain, atol=1e-7)


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"key": 0.5}, "key: float; expected jax.random.key(0)"),
        ({"key": None}, "key: NoneType; expected"),
        ({"key": "7"}, "key: str; expected"),
        ({"key": True}, "key: bool; expected"),
        ({"key": np.zeros(3, np.uint32)}, "key: uint32 of shape [3]; expected"),
        ({"key": jax.random.split(jax.random.key(0), 2)}, "key: 2 keys for a batch of 3"),
        ({"x": X * 255}, "expected floats in [0, 1], such as x / 255"),
        ({"x": X - 1}, "clip: pixels from -"),
        ({"x": X[0, 0]}, "clip: shape [4]; expected a batch"),
        ({"x": X * np.nan}, "clip: pixels from nan to nan"),
        ({"x": (X * 255).astype(np.int32)}, "clip: pixels of int32; expected uint8, or floats"),
        ({"y": Y + 3}, "label: 3 to 5 on a model of 5 classes; expected 0 to 4 (these look num"),
        ({"y": Y + 4}, "label: 4 to 6 on a model of 5 classes; expected 0 to 4"),
        ({"y": Y - 1}, "label: -1 to 1 on a model of 5 classes; expected 0 to 4"),
        ({"y": np.array([2**32, 0, 1])}, "label: 0 to 4294967296 on a model of 5 classes"),
        ({"y": np.eye(5, dtype=int)[Y]}, "look one-hot (try label.argmax(-1)); expected integers"),
        ({"y": np.eye(5)[Y]}, "look one-hot (try label.argmax(-1)); expected integers"),
        ({"y": Y[:, None]}, "are a column (try label[..., 0]); expected integers of shape [3]"),
        ({"y": Y * 1.0}, "are no integers (try label.astype(int)); expected integers of shape"),
        ({"y": Y[:2]}, "label: int64 of shape [2] on logits of shape [3, 5]; expected integers"),
        ({"y": 1}, "label: int64 of shape [] on logits of shape [3, 5]; expected integers"),
        ({"params": {"w": "weights"}}, "params: a leaf of type str; expected arrays"),
    ],
)
def test_what_is_handed_over_wrongly_is_named_in_one_line(given, said):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        found(**given)
    assert "\n" not in str(error.value)


def test_labels_and_pixels_of_the_wrong_kind_are_named_under_jit_too():
    run = jax.jit(PGD)
    with pytest.raises(ValueError, match="look one-hot"):
        run(KEY, WEIGHTS, X, np.eye(5, dtype=np.int32)[Y])
    with pytest.raises(ValueError, match="pixels of int32"):
        run(KEY, WEIGHTS, X.astype(np.int32), Y)


class Net(nn.Module):
    """One that is not bound to its params."""

    @nn.compact
    def __call__(self, x):
        return nn.Dense(5)(flat(x))


def counting():
    """A model that keeps a state of its own."""
    model = nnx.BatchNorm(8, rngs=nnx.Rngs(0))
    return lambda _, x: model(flat(x))


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (lambda x: flat(x), "takes (x); expected a function (params, x) -> logits"),
        (Net(), "model: Net takes (x); expected a function (params, x) -> logits"),
        (nnx.Linear(8, 5, rngs=nnx.Rngs(0)), "model: Linear takes (inputs"),
        (lambda x, train=False: flat(x), "takes (x, train=False); expected a function"),
        (3, "model: int cannot be called; expected a function"),
        (lambda params, x: np.asarray(x).reshape(3, -1), "model: cannot be traced by JAX (Tracer"),
        (lambda params, x: flat(x) if x.sum() > 0 else flat(-x), "model: cannot be traced by JAX"),
        (lambda params, x: flat(x) * float(x.sum()), "model: cannot be traced by JAX (Conc"),
        (counting(), "model: cannot be traced by JAX (TraceContextError"),
        (lambda params, x: flat(x)[:, :1], "model: logits of shape [3, 1]; expected 2 classes or"),
        (lambda params, x: flat(x)[:, 0], "model: an output of float32[3] for inputs of shape"),
        (lambda params, x: flat(x).argmax(-1), "model: an output of int32[3] for inputs of shape"),
    ],
)
@pytest.mark.parametrize("params", [WEIGHTS, None])
def test_a_model_that_is_none_is_named_in_one_line(model, said, params):
    with pytest.raises(ValueError, match=re.escape(said)) as error:
        build_attack("pgd", model, ThreatModel())(KEY, params, X, Y)
    assert "\n" not in str(error.value)


def test_a_model_for_half_precision_alone_is_told_what_pixels_it_gets():
    def strict(params, x):
        return jax.lax.add(flat(x)[:, :5], params[:3])

    half = X.astype(jnp.bfloat16), WEIGHTS.astype(jnp.bfloat16)
    with pytest.raises(ValueError, match=r"given pixels of float32; .*x\.astype\(jnp\.bf"):
        build_attack("pgd", strict, ThreatModel())(KEY, half[1], half[0], Y)


@pytest.mark.parametrize(
    "epsilon", [-0.1, np.float32(-0.1), np.nan, np.zeros(2), [0.1], "8/255", None]
)
def test_an_epsilon_that_is_none_is_named(epsilon):
    def attack():
        return build_attack("pgd", linear, ThreatModel("linf", epsilon))(KEY, WEIGHTS, X, Y)

    with pytest.raises(ValueError, match=r"^threat\.epsilon: "):
        attack()


IMAGES = (2, 16, 16, 3)
CHANNELS_LAST = (2, 8, 16, 16, 3), (2, 3, 16, 16, 3), (2, 3, 16, 16, 20)
CHANNELS_LAST += (2, 1, 1, 48), (2, 48), (2, 16, 16), (2, 1, 1, 64, 3), (2, 3, 3, 64), (2, 64, 3)


@pytest.mark.parametrize("name", ["square", "pgd", "flicker", "tlga-r"])
@pytest.mark.parametrize(
    ("shape", "expected", "refused_by"),
    [
        ((2, 3, 32, 32), "x.transpose(0, 2, 3, 1)", {"square", "flicker"}),
        ((2, 1, 28, 28), "x.transpose(0, 2, 3, 1)", {"square", "flicker"}),
        ((2, 3, 48, 64), "x.transpose(0, 2, 3, 1)", {"square", "flicker"}),
        ((2, 3, 8, 16, 16), "x.transpose(0, 2, 3, 4, 1)", {"square", "flicker", "tlga-r"}),
        ((2, 1, 8, 16, 16), "x.transpose(0, 2, 3, 4, 1)", {"square", "flicker", "tlga-r"}),
        ((2, 8, 3, 16, 16), "x.transpose(0, 1, 3, 4, 2)", {"square", "flicker"}),
        ((2, 8, 1, 16, 16), "x.transpose(0, 1, 3, 4, 2)", {"square", "flicker"}),
        ((2, 1, 3, 16, 16), "x.transpose(0, 1, 3, 4, 2)", {"square", "flicker"}),
        *((shape, None, set()) for shape in CHANNELS_LAST),
    ],
)
def test_channels_first_is_refused_where_an_attack_reads_the_axes(
    name, shape, expected, refused_by
):
    named = ATTACKS[name]
    check = {"picture": named.picture, "temporal": named.temporal}
    if name not in refused_by:
        check_axes(name, shape, **check)
        return
    with pytest.raises(ValueError, match=re.escape(expected)) as error:
        check_axes(name, shape, **check)
    turned, back = re.findall(r"transpose(\([\d, ]+\))", str(error.value))
    x = np.zeros(shape)
    assert x.transpose(eval(turned)).transpose(eval(back)).shape == shape
    assert x.transpose(eval(turned)).shape[-1] in (1, 3)


@pytest.mark.parametrize("name", ["square", "pgd", "flicker", "tlga-r"])
def test_attacks_in_time_refuse_images(name):
    named = ATTACKS[name]
    check = {"picture": named.picture, "temporal": named.temporal}
    if not named.temporal:
        check_axes(name, IMAGES, **check)
        return
    with pytest.raises(ValueError, match=r"\[2, 16, 16, 3\] look like images, and it attacks in"):
        check_axes(name, IMAGES, **check)


def test_square_refuses_channels_first_before_it_looks():
    with pytest.raises(ValueError, match=r"square: inputs of shape .* look channels-first"):
        build_attack("square", linear, ThreatModel())(KEY, WEIGHTS, np.zeros((2, 3, 8, 8)), Y[:2])


def test_a_model_that_cannot_take_channels_first_says_so_and_not_its_own_words():
    weights = jnp.ones((3, 4))

    def model(params, x):
        return jnp.mean(x, axis=(1, 2)) @ params

    x = np.full((5, 3, 8, 8), 0.5, np.float32)
    attack = build_attack("pgd", model, ThreatModel("linf", 0.1), AttackSettings(steps=1))
    with pytest.raises(ValueError, match=r"\[5, 3, 8, 8\], which look channels-first; exp"):
        attack(jax.random.key(0), weights, x, np.zeros(5, int))
    attack(jax.random.key(0), weights, x.transpose(0, 2, 3, 1), np.zeros(5, int))

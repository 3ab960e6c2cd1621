"""Users' convolutions, rewritten: against the native ones, whatever library wrote them."""

import functools
import re

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax import lax
from jax.sharding import PartitionSpec

from jaxmoe import attacks, mixture
from jaxmoe.evaluation.diagnostics.full_precision import at_full_precision
from jaxmoe.models import ResNet, conv, fast_convolutions, native_convolutions
from jaxmoe.threat import ThreatModel

IMAGES = ("NHWC", "HWIO", "NHWC")
FAST = {"b01f_01io->b01f"}


def draw(*shape: int, seed: int = 0, dtype=jnp.float32) -> jax.Array:
    return jnp.asarray(np.random.default_rng(seed).normal(size=shape), dtype)


def convolve(x, kernel, strides=(1, 1), padding="SAME", numbers=IMAGES, **options):
    return lax.conv_general_dilated(
        x, kernel, strides, padding, dimension_numbers=numbers, **options
    )


def assert_same(function, *operands, tolerance=1e-5):
    """Values and the gradients in all operands."""

    def looks(function):
        weights = jnp.cos(jnp.arange(function(*operands).size, dtype=jnp.float32))

        def loss(*operands):
            return jnp.sum(jnp.sin(function(*operands).astype(jnp.float32)).ravel() * weights)

        return function(*operands), jax.grad(loss, tuple(range(len(operands))))(*operands)

    both = jax.jit(lambda: (looks(fast_convolutions(function)), looks(function)))()
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        assert ours.dtype == theirs.dtype
        ours, theirs = np.asarray(ours, np.float32), np.asarray(theirs, np.float32)
        np.testing.assert_allclose(ours, theirs, atol=tolerance * np.max(np.abs(theirs), initial=0))


X, KERNEL = draw(2, 9, 8, 3), draw(3, 3, 3, 4, seed=1)
CASES = {
    "plain": ((X, KERNEL), {}),
    "stride 2": ((X, KERNEL), {"strides": (2, 2)}),
    "strides 3, 2, asymmetrical": ((X, KERNEL), {"strides": (3, 2), "padding": ((4, 0), (0, 3))}),
    "negative padding": ((X, KERNEL), {"strides": (2, 1), "padding": ((-1, 2), (1, -2))}),
    "1 x 1, stride 2": ((X, KERNEL[:1, :1]), {"strides": (2, 2)}),
    "dilated": ((X, KERNEL), {"rhs_dilation": (2, 1)}),
    "transposed": ((X, KERNEL), {"lhs_dilation": (2, 3), "padding": ((1, 2), (2, 0))}),
    "transposed, with strides": (
        (X, KERNEL),
        {"lhs_dilation": (2, 3), "strides": (3, 2), "padding": ((-1, 2), (2, -3))},
    ),
    "a small image, spread out and strided alike": (
        (X[:, :2, :2], KERNEL),
        {"lhs_dilation": (2, 2), "strides": (2, 2), "padding": ((3, 3), (3, 3))},
    ),
    "grouped": ((X[..., :2], KERNEL[:, :, :1]), {"feature_group_count": 2, "strides": (2, 2)}),
    "depthwise": ((X, draw(3, 3, 1, 6)), {"feature_group_count": 3}),
    "batch groups": ((X, KERNEL), {"batch_group_count": 2}),
    "as large as the image": ((X, draw(9, 8, 3, 5)), {"padding": "VALID"}),
    "channels first": (
        (X.transpose(0, 3, 1, 2), KERNEL.transpose(3, 2, 0, 1)),
        {"strides": (2, 1), "numbers": ("NCHW", "OIHW", "NCHW")},
    ),
    "axes anyhow": (
        (X.transpose(1, 3, 0, 2), KERNEL.transpose(3, 0, 1, 2)),
        {"numbers": ("HCNW", "OHWI", "CWNH")},
    ),
    "1D": (
        (draw(2, 3, 9), draw(4, 3, 3)),
        {"strides": (2,), "numbers": ("NCH", "OIH", "NCH")},
    ),
    "3D": (
        (draw(2, 3, 5, 6, 7), draw(4, 3, 3, 3, 3)),
        {"strides": (1, 2, 2), "numbers": ("NCDHW", "OIDHW", "NCDHW")},
    ),
    "nothing left": ((X[:, :2], KERNEL), {"padding": "VALID"}),
    "bfloat16": ((X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)), {}),
    "a wider output": (
        (X.astype(jnp.bfloat16), KERNEL.astype(jnp.bfloat16)),
        {"preferred_element_type": jnp.float32},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_values_and_gradients_are_the_native_ones(name):
    operands, options = CASES[name]
    # Half precision rounds results and the cotangents that reach them.
    tolerance = 2e-2 if operands[0].dtype == jnp.bfloat16 else 1e-5
    assert_same(functools.partial(convolve, **options), *operands, tolerance=tolerance)


def test_integers_stay_native():
    x, kernel = (jnp.round(4 * a).astype(jnp.int32) for a in (X, KERNEL))
    np.testing.assert_array_equal(fast_convolutions(convolve)(x, kernel), convolve(x, kernel))


SQUARE = draw(3, 3, 3, 3, seed=2) / 5


@jax.custom_vjp
def tripled(x, kernel):
    return convolve(x, kernel)


tripled.defvjp(
    lambda x, kernel: (convolve(x, kernel), (x, kernel)),
    lambda operands, g: tuple(3 * g for g in jax.vjp(convolve, *operands)[1](g)),
)


@jax.custom_jvp
def doubled(x, kernel):
    return convolve(x, kernel)


doubled.defjvps(
    lambda t, y, x, kernel: 2 * convolve(t, kernel), lambda t, y, x, kernel: 2 * convolve(x, t)
)


def in_a_scan(x, kernel):
    def step(x, odd):
        branches = (lambda x: jax.checkpoint(convolve)(x, kernel), lambda x: x)
        return jnp.tanh(lax.cond(odd, *branches, x)), None

    return lax.scan(step, x, jnp.array([True, False, True]))[0]


NESTED = {
    "scan, cond and remat": in_a_scan,
    "jit": jax.jit(convolve),
    "custom_vjp": tripled,
    "custom_jvp": doubled,
    "vmap over images": lambda x, k: jax.vmap(lambda x: convolve(x[None], k)[0])(x),
    "vmap over both": lambda x, k: jax.vmap(lambda s: convolve(s * x, s * k))(jnp.arange(1.0, 3)),
}


@pytest.mark.parametrize("name", NESTED)
def test_nested_convolutions_are_found_and_stay_exact(name):
    assert_same(NESTED[name], X, SQUARE)
    fast = fast_convolutions(NESTED[name])
    names = str(jax.make_jaxpr(jax.grad(lambda x: jnp.sum(fast(x, SQUARE))))(X))
    assert "convolution[" in names
    assert "conv_general_dilated[" not in names


def test_a_while_loop():
    def function(x):
        return lax.while_loop(lambda x: jnp.sum(x) < 1e3, lambda x: jnp.abs(convolve(x, SQUARE)), x)

    x = jnp.abs(X)
    np.testing.assert_allclose(fast_convolutions(function)(x), function(x), rtol=1e-5)


def test_forward_mode_second_order_and_vmap_of_gradients():
    def looks(function):
        def loss(x, kernel):
            return jnp.sum(jnp.sin(function(x, kernel)))

        def penalty(kernel):
            return jnp.sum(jnp.square(jax.grad(loss)(X, kernel)))

        kernels = jnp.stack([SQUARE, 2 * SQUARE])
        return (
            jax.jvp(lambda x: function(x, SQUARE), (X,), (jnp.cos(X),)),
            jax.grad(penalty)(SQUARE),
            jax.vmap(jax.grad(loss, (0, 1)), (None, 0))(X, kernels),
        )

    both = jax.jit(lambda: (looks(fast_convolutions(convolve)), looks(convolve)))()
    for ours, theirs in zip(*map(jax.tree.leaves, both), strict=True):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_shard_map():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Auto,))
    spec = PartitionSpec("data")

    def gradient(x, kernel):
        return jax.grad(lambda x: jnp.sum(jnp.sin(fast_convolutions(convolve)(x, kernel))))(x)

    mapped = jax.shard_map(gradient, mesh=mesh, in_specs=(spec, PartitionSpec()), out_specs=spec)
    theirs = jax.grad(lambda x: jnp.sum(jnp.sin(convolve(x, SQUARE))))(X)
    np.testing.assert_allclose(jax.jit(mapped)(X, SQUARE), theirs, atol=1e-4)


def linen():
    module = nn.Sequential([nn.Conv(12, (3, 3)), nn.relu, nn.Conv(6, (3, 3), 2, use_bias=False)])
    params = module.init(jax.random.key(0), jnp.zeros((1, 18, 20, 3)))
    return lambda params, x: jnp.mean(module.apply(params, x), (1, 2)), params


def nnx_module():
    rngs = nnx.Rngs(0)
    layers = [nnx.Conv(3, 12, (3, 3), rngs=rngs), nnx.relu, nnx.Conv(12, 6, (3, 3), 2, rngs=rngs)]
    graph, params = nnx.split(nnx.Sequential(*layers))
    return lambda params, x: jnp.mean(nnx.merge(graph, params)(x), (1, 2)), params


def equinox():
    first, second = jax.random.split(jax.random.key(0))
    layers = [eqx.nn.Conv2d(3, 12, 3, padding=1, key=first), eqx.nn.Lambda(jax.nn.relu)]
    layers.append(eqx.nn.Conv2d(12, 6, 3, 2, padding=1, key=second))
    params, static = eqx.partition(eqx.nn.Sequential(layers), eqx.is_array)

    def apply(params, x):
        features = jax.vmap(eqx.combine(params, static))(x.transpose(0, 3, 1, 2))
        return jnp.mean(features, (2, 3))

    return apply, params


def plain():
    params = [draw(3, 3, 3, 12) / 5, draw(3, 3, 12, 6) / 9]

    def apply(params, x):
        return jnp.mean(convolve(jax.nn.relu(convolve(x, params[0])), params[1], (2, 2)), (1, 2))

    return apply, params


MODELS = {"linen": linen, "nnx": nnx_module, "equinox": equinox, "lax": plain}
CLIPS, LABELS = jax.nn.sigmoid(draw(2, 18, 20, 3)), jnp.array([1, 4])
SETTINGS = attacks.AttackSettings(steps=3)


def compiled_pgd(model, params):
    attack = attacks.pgd(model, ThreatModel("linf", 0.1), SETTINGS)
    return jax.jit(attack).lower(jax.random.key(0), params, CLIPS, LABELS).compile()


def labels(program) -> set[str]:
    return set(re.findall(r"dim_labels=(\S+?)[,\s]", program.as_text()))


@pytest.mark.parametrize("name", MODELS)
def test_attacks_on_users_models_have_fast_convolutions_alone(name):
    model, params = MODELS[name]()
    program = compiled_pgd(model, params)
    assert labels(program) == FAST

    def gradient(model):
        loss = attacks.attack.loss_of_logits(model, SETTINGS, params, lambda z: jnp.sum(z, -1))
        return jax.grad(lambda x: jnp.sum(loss(x)))

    models = (model, native_convolutions(model))
    gradients = jax.jit(lambda x: [gradient(model)(x) for model in models])
    np.testing.assert_allclose(*gradients(CLIPS), atol=1e-5)


def test_native_convolutions_is_the_way_to_say_no():
    model, params = plain()
    assert labels(compiled_pgd(native_convolutions(model), params)) - FAST
    assert fast_convolutions(native := native_convolutions(model)) is native


def test_randomized_models_have_fast_convolutions():
    model, params = plain()
    noisy = attacks.Randomized(lambda p, x, key: model(p, x + jax.random.normal(key, x.shape)))
    assert labels(compiled_pgd(noisy, params)) == FAST


def test_mixtures_have_fast_convolutions_and_keep_their_results_for_the_backward_pass():
    model, params = plain()
    params = {"router": jnp.ones((3, 2)), "experts": mixture.stack_experts([params, params])}

    def convolutions(expert):
        pair = mixture.from_functions(
            lambda p, x: jnp.mean(x, (1, 2)) @ p, expert, num_experts=2, block_size=2
        )
        gradient = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(pair.apply(params, x))))
        names = re.findall(r"(conv_general_dilated|convolution)\[", str(gradient(CLIPS)))
        return len(names), set(names)

    count, native = convolutions(native_convolutions(model))
    assert native == {"conv_general_dilated"}
    assert convolutions(model) == (count, {"convolution"})


def test_certificates_see_the_precision_of_users_convolutions():
    exact = at_full_precision(fast_convolutions(lambda x: convolve(x, KERNEL)))
    np.testing.assert_allclose(exact(X), convolve(X, KERNEL), rtol=1e-5)
    rounded = fast_convolutions(lambda x: convolve(x, KERNEL, precision=lax.Precision.DEFAULT))
    with pytest.raises(ValueError, match="the model multiplies with precision"):
        at_full_precision(rounded)(X)


def test_gpu_and_tpu_compile_what_they_did():
    model, params = plain()

    def lowered(model, platform):
        def loss(x):
            return jnp.sum(jnp.sin(model(params, x)))

        traced = jax.jit(jax.grad(loss)).trace(CLIPS)
        text = traced.lower(lowering_platforms=(platform,)).as_text()
        return sorted(re.findall(r"stablehlo.convolution.*", re.sub(r"%\w+", "", text)))

    for platform in ("cuda", "tpu"):
        theirs = lowered(model, platform)
        assert len(theirs) == 4  # forward, and gradients in the inputs
        assert lowered(fast_convolutions(model), platform) == theirs


def test_our_own_convolutions_are_left_alone():
    model = ResNet(3, width=4, stage_sizes=(1,), stem="small")
    assert fast_convolutions(model.apply) == model.apply
    kernel = draw(3, 3, 3, 4)

    def apply(x):
        return conv(x, kernel, strides=2)

    theirs = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(apply(x))))(X)
    ours = jax.make_jaxpr(jax.grad(lambda x: jnp.sum(fast_convolutions(apply)(x))))(X)
    count = re.compile(r"= (?:conv_general_dilated|convolution)\[")
    assert len(count.findall(str(ours))) == len(count.findall(str(theirs)))
    assert " convolution[" not in str(ours)


def test_the_function_sees_its_own_arguments_and_returns_its_own_outputs():
    seen = []

    def apply(params, x, *, scale):
        seen.append((params["strides"], scale))
        if params["flag"]:  # a concrete array, as outside of any transformation
            x = x * scale
        return {"y": convolve(x, params["kernel"], params["strides"]), "name": "logits"}

    params = {"strides": (2, 2), "flag": jnp.array(True), "kernel": KERNEL}
    result = fast_convolutions(apply)(params, X, scale=2.0)
    assert seen == [((2, 2), 2.0)]
    assert result["name"] == "logits"
    np.testing.assert_allclose(result["y"], convolve(2 * X, KERNEL, (2, 2)), rtol=1e-6)

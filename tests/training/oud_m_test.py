"""OUD-M's loss and gradients against a plain network with the restoration block."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.config import RECIPES
from jaxmoe.mixture import Mixture, from_functions
from jaxmoe.models import ResNet
from jaxmoe.threat import ThreatModel
from jaxmoe.training import PARTS, Found
from tests.models.restoration_test import halved, resized
from tests.training.conftest import CLASSES
from tests.training.recipes_test import OPTIONS, compare, cross_entropy, route, softmax

EXPERTS = 2
NETWORK = ResNet(
    CLASSES, width=2, stage_sizes=(1,), stem="small", stem_strides=(1, 1, 1), restoration=True
)


def images(x):
    """The 36 pixels of each clip as an image: half of it still has a 3 × 3 neighbourhood."""
    return x.reshape(len(x), 6, 6, 1)


def restored_mixture() -> Mixture:
    """Networks with a restoration block, each of which sees a clip as an image."""

    def init(key, x):
        image = images(x)[:1]
        features = image.size
        like = {
            "router": {"w": jnp.zeros((features, EXPERTS))},
            "experts": jax.eval_shape(
                jax.vmap(NETWORK.init, (0, None)), jax.random.split(key, EXPERTS), image
            ),
        }
        draw = np.random.default_rng(0)
        return jax.tree.map(
            lambda leaf: jnp.asarray(draw.normal(0.5, 0.5, leaf.shape), leaf.dtype), like
        )

    return from_functions(
        lambda params, x: x.reshape(len(x), -1) @ params["w"],
        lambda params, x: NETWORK.apply(params, images(x)),
        num_experts=EXPERTS,
        init=init,
    )


def layer(params, conv, norm, x):
    """A convolution of width 3 of one image, and a norm over all its channels and places."""
    kernel = params[conv]["kernel"]
    numbers = jax.lax.conv_dimension_numbers(x.shape, kernel.shape, ("NHWC", "HWIO", "NHWC"))
    y = jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=numbers)
    y = (y - y.mean()) / jnp.sqrt(y.var() + 1e-5)
    scale, bias = (params[norm][name][None, None, None] for name in ("scale", "bias"))
    return y * scale + bias


def restored(params, x):
    """Half of the over-complete branch and half of the under-complete one."""

    def relu_layer(name, y):
        return jax.nn.relu(layer(params, f"{name}_conv", f"{name}_norm", y))

    height, width = x.shape[1:3]
    over = resized(relu_layer("over1", x), 2 * height, 2 * width)
    over = halved(relu_layer("over2", over))
    under = relu_layer("under2", halved(relu_layer("under1", x)))
    return (over + resized(under, height, width)) / 2


def network(params, x):
    x = jax.nn.relu(layer(params, "stem", "norm_stem", (x - 0.5) / 0.5))
    block = params["stage1_block1"]
    y = jax.nn.relu(layer(block, "conv1", "norm1", x))
    x = jax.nn.relu(x + layer(block, "conv2", "norm2", y))
    x = restored(params["restoration"], x).mean((1, 2))[0]
    return x @ params["head"]["kernel"] + params["head"]["bias"]


def test_oud_m_equals_its_formula(clips):
    mixture, (x, x_adv, y) = restored_mixture(), clips
    params = mixture.init(jax.random.key(0), x)
    (phase,) = RECIPES.make("oud_m").phases(mixture, ThreatModel("linf", 0.1), OPTIONS)
    assert phase.moves == PARTS

    def one(p, clip, label):
        weights = softmax(route(p, clip))
        i = jnp.argmax(weights)
        own = jax.tree.map(lambda leaf: leaf[i], p["experts"]["params"])
        return cross_entropy(weights[i] * network(own, images(clip[None])), label)

    gradient = compare(
        lambda p: jnp.mean(phase.loss(p, x, y, Found(x_adv))),
        lambda p: jnp.mean(jax.vmap(one, (None, 0, 0))(p, x_adv, jnp.asarray(y))),
        params,
    )
    for leaf in jax.tree.leaves(gradient["experts"]["params"]["restoration"]):
        assert np.abs(leaf).max() > 1e-4

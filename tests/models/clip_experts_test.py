"""Every architecture of clips as the experts of a mixture: attacked, trained and counted."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import jaxmoe
from jaxmoe.attacks import AttackSettings
from jaxmoe.config import EXPERTS, RECIPES
from jaxmoe.evaluation import mixture_flops
from jaxmoe.mixture import from_modules
from jaxmoe.models import PooledRouter
from jaxmoe.threat import ThreatModel
from jaxmoe.training import Batch, RecipeOptions, adamw, init_state, make_train_step
from tests.night import at_night

M, CLASSES, CLIPS = 4, 3, 3
FAST = {"xla_backend_optimization_level": 0, "xla_llvm_disable_expensive_passes": True}
ODD = (5, 7, 9, 3)  # no stride divides it
TINY = {"width": 4, "stage_sizes": (1,)}
EXPERTS_OF_CLIPS = {
    "r2plus1d": (TINY, ODD),
    "mc3": ({**TINY, "stage_sizes": (1, 1)}, ODD),
    "tsm": ({**TINY, "width": 8}, ODD),
    "slowfast": ({**TINY, "width": 8}, ODD),
    "vivit": ({"width": 8, "depth": 1, "heads": 2}, (6, 12, 8, 3)),
}


def make(name):
    fields, shape = EXPERTS_OF_CLIPS[name]
    expert = EXPERTS.make(name, **fields).build(CLASSES)
    mixture = from_modules(PooledRouter(M), expert, num_experts=M)
    return mixture, jax.ShapeDtypeStruct((CLIPS, *shape), jnp.float32)


def drawn(mixture, x):
    rng = np.random.default_rng(0)
    shapes = jax.eval_shape(mixture.init, jax.random.key(0), x)
    return jax.tree.map(
        lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) / 3, leaf.dtype), shapes
    )


def test_every_architecture_of_clips_is_tried_here():
    of_clips = {name for name, kind in EXPERTS.items() if kind.sees_clips and not kind.sees_images}
    assert of_clips == set(EXPERTS_OF_CLIPS)


@pytest.mark.parametrize(
    "name", ["tsm", *(at_night(name) for name in EXPERTS_OF_CLIPS if name != "tsm")]
)
def test_gradients_reach_every_clip_and_the_experts_that_were_chosen(name):
    mixture, x = make(name)
    params = drawn(mixture, x)
    pixels = jnp.asarray(np.random.default_rng(1).random(x.shape), jnp.float32)

    def loss(params, x):
        return jnp.sum(jnp.square(mixture.apply(params, x)))

    run = jax.jit(jax.grad(loss, argnums=(0, 1)), compiler_options=FAST)
    of_params, of_pixels = run(params, pixels)
    chosen = set(np.argmax(mixture.route(params, pixels), axis=-1).tolist())
    assert np.abs(of_pixels).max(axis=(1, 2, 3, 4)).min() > 0
    for expert in range(M):
        size = sum(float(jnp.abs(g[expert]).sum()) for g in jax.tree.leaves(of_params["experts"]))
        assert np.isfinite(size)
        assert (size > 0) == (expert in chosen)


@pytest.mark.nightly
@pytest.mark.parametrize("name", EXPERTS_OF_CLIPS)
def test_a_mixture_of_them_is_attacked_and_takes_a_step_of_j_tlat(name):
    mixture, x = make(name)
    params = drawn(mixture, x)
    rng = np.random.default_rng(1)
    grey, labels = (
        rng.integers(0, 256, x.shape, np.uint8),
        np.arange(CLIPS, dtype=np.int32) % CLASSES,
    )
    settings = AttackSettings(steps=1)
    found = jaxmoe.attack(mixture, params, grey, labels, "j-tlga", epsilon=0.1, settings=settings)
    moved = np.abs(found.x_adv - grey / 255.0)
    assert 0.05 < moved.max() <= 0.1 + 1e-6

    optimizer = adamw(1e-2, 1.0)
    step = make_train_step(
        mixture,
        RECIPES.make("j_tlat").phases,
        RecipeOptions(settings),
        ThreatModel("linf", 0.1),
        optimizer,
        optax.constant_schedule(1e-2),
        optax.constant_schedule(0.1),
    )
    batch = Batch(grey, labels, np.arange(CLIPS, dtype=np.int32))
    with jax.numpy_dtype_promotion("standard"):  # optax's Adam raises a float to an integer count
        step = jax.jit(step, compiler_options=FAST)
        state, metrics = step(init_state(params, optimizer), batch, jax.random.key(0))
    assert all(np.isfinite(value).all() for value in jax.tree.leaves((metrics, state.params)))
    for part in ("router", "experts"):
        before, after = (jax.tree.leaves(p[part]) for p in (params, state.params))
        assert any(np.any(a != b) for a, b in zip(before, after, strict=True))


@pytest.mark.parametrize(
    "name", ["slowfast", *(at_night(name) for name in EXPERTS_OF_CLIPS if name != "slowfast")]
)
def test_four_of_them_cost_at_most_two_fifths_of_the_dense_mixture(name):
    mixture, x = make(name)
    params = jax.eval_shape(mixture.init, jax.random.key(0), x)
    flops = mixture_flops(mixture, params, x.shape[1:], batch_size=32)
    assert flops.ideal_ratio <= flops.ratio <= 0.40

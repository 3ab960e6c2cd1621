"""Counted operations against a closed form, and the bar for a real mixture."""

import jax
import jax.numpy as jnp
import pytest

from jaxmoe.evaluation import mixture_flops
from jaxmoe.mixture import from_functions, from_modules
from jaxmoe.models import PooledRouter, ResNet


def linear(params, x):
    return x.reshape(x.shape[0], -1) @ params


def linear_mixture(**options):
    return from_functions(linear, linear, num_experts=4, **options)


PIXELS, CLASSES, SHAPE = 1024, 64, (4, 16, 16, 1)
LINEAR = {"router": jnp.ones((PIXELS, 4)), "experts": jnp.ones((4, PIXELS, CLASSES))}


@pytest.mark.parametrize(("top_k", "block_size"), [(1, 2), (1, 4), (2, 4)])
def test_a_linear_mixture_costs_two_operations_for_each_weight_and_block(top_k, block_size):
    mixture = linear_mixture(top_k=top_k, block_size=block_size)
    flops = mixture_flops(mixture, LINEAR, SHAPE, batch_size=16, block_size=block_size)
    expert, router = 2e-9 * PIXELS * CLASSES, 2e-9 * PIXELS * 4
    slots = flops.blocks * block_size
    assert flops.blocks == 16 * top_k // block_size + 3
    assert flops.expert == pytest.approx(expert, rel=0.01)
    assert flops.router == pytest.approx(router, rel=0.01)
    assert flops.dense == pytest.approx(router + 4 * expert, rel=0.01)
    assert flops.sparse == pytest.approx(router + expert * slots / 16, rel=0.02)


def test_a_residual_mixture_of_four_costs_at_most_two_fifths_of_the_dense_one():
    expert = ResNet(num_classes=5, width=16, stage_sizes=(1,), stem="small")
    mixture = from_modules(PooledRouter(num_experts=4), expert, num_experts=4)
    params = jax.eval_shape(mixture.init, jax.random.key(0), jnp.zeros((1, 4, 16, 16, 3)))
    flops = mixture_flops(mixture, params, (4, 16, 16, 3), batch_size=32)
    assert flops.blocks * flops.block_size >= 32
    assert flops.ideal_ratio <= flops.ratio <= 0.40


def test_what_cannot_be_counted_is_refused():
    def looping(params, x):
        return jax.lax.fori_loop(0, 9, lambda _, y: jnp.tanh(y), linear(params, x))

    mixture = from_functions(linear, looping, num_experts=4)
    with pytest.raises(ValueError, match="expert's compiled program has a while"):
        mixture_flops(mixture, LINEAR, SHAPE, batch_size=16)
    with pytest.raises(ValueError, match="dense mixture"):
        mixture_flops(linear_mixture(top_k=4), LINEAR, SHAPE)


def test_a_block_size_that_the_mixture_does_not_have_is_noticed():
    with pytest.raises(ValueError, match="expected a loop of"):
        mixture_flops(linear_mixture(block_size=2), LINEAR, SHAPE, batch_size=16, block_size=8)

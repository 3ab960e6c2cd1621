"""What a program computes, sends and holds, against counts by hand and XLA's."""

import dataclasses

import jax
import jax.numpy as jnp
import pytest

from jaxmoe.config import (
    EvaluationConfig,
    MixtureConfig,
    ResNetConfig,
    SyntheticActionsConfig,
    TrainingConfig,
)
from jaxmoe.models import conv
from jaxmoe.runs.plan.count import count, forward_flops, peak_bytes
from jaxmoe.runs.plan.program import Placing, Program
from tests.commands.tiny import TINY

# By hand, multiply-adds of an expert of TINY, [4, 16, 16, 3] to 10 classes. Along an axis of n
# places a window of 3 with one zero at each end reads 3 n − 2 of them, with stride 2 3 n / 2 − 1.
STEM = 10 * 23 * 23 * 3 * 4
BLOCK = 2 * 10 * 22 * 22 * 4 * 4
HEAD = 4 * 10
EXPERT = 2 * (STEM + BLOCK + HEAD)

ALONE = dataclasses.replace(
    TINY,
    mixture=MixtureConfig(experts=1, balance_weight=0.0),
    evaluation=EvaluationConfig(steps=10),
)


def shapes(program: Program):
    return program.params, jax.ShapeDtypeStruct((1, *program.experiment.data.shape), "float32")


def test_a_forward_pass_is_that_of_a_count_by_hand():
    program = Program("step", TINY, 10, Placing(1))
    expert = forward_flops(lambda p, x: program.mixture.expert(p, x, 0), *shapes(program))
    assert expert == pytest.approx(EXPERT, rel=0.01)


def test_an_attack_takes_two_passes_a_step_and_two_looks():
    program = Program("attack", ALONE, 10, Placing(1))
    router = forward_flops(program.mixture.route, *shapes(program))
    found = count(program.trace(3)).total
    assert found == pytest.approx(3 * (10 * 2 + 2) * (EXPERT + router), rel=0.01)


def test_a_step_takes_three_passes_but_for_the_gradient_of_pixels():
    program = Program("step", ALONE, 10, Placing(1))
    found = count(program.trace(3)).total
    alone = 3 * (3 * EXPERT - 2 * STEM)
    router = 3 * 3 * forward_flops(program.mixture.route, *shapes(program))
    assert alone <= found <= 1.01 * alone + router


@pytest.mark.parametrize("strides", [1, 2])
@pytest.mark.parametrize("padding", ["SAME", "VALID"])
def test_gradients_of_a_convolution_are_what_xla_counts(strides, padding):
    x = jax.ShapeDtypeStruct((2, 9, 8, 3), jnp.float32)
    kernel = jax.ShapeDtypeStruct((3, 3, 3, 5), jnp.float32)

    def native(x, kernel):
        return jax.lax.conv_general_dilated(
            x, kernel, (strides,) * 2, padding, dimension_numbers=("NHWC", "HWIO", "NHWC")
        )

    def gradients(function):
        return jax.grad(lambda *args: jnp.sum(function(*args) ** 2), (0, 1))

    expected = jax.jit(native).lower(x, kernel).cost_analysis()["flops"]
    assert forward_flops(native, x, kernel) == expected
    own = forward_flops(
        gradients(lambda x, kernel: conv(x, kernel, strides=strides, padding=padding)), x, kernel
    )
    # Every gradient multiplies what the forward pass did.
    assert own == forward_flops(gradients(native), x, kernel) == 3 * expected


def test_a_loop_counts_as_often_as_it_runs_and_of_branches_the_dearest():
    a = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def loop(a):
        return jax.lax.fori_loop(0, 5, lambda _, b: b @ a, a)

    def branch(a):
        return jax.lax.cond(a[0, 0] > 0, lambda a: a @ a @ a, lambda a: a @ a, a)

    assert forward_flops(loop, a) == 5 * 2 * 4**3
    assert forward_flops(branch, a) == 2 * 2 * 4**3
    assert count(jax.make_jaxpr(lambda a: (a @ a, a)[1])(a)).total == 0


def test_where_the_number_of_the_turn_chooses_a_branch_that_one_counts():
    a = jax.ShapeDtypeStruct((4, 4), jnp.float32)

    def all_but_the_last(b, number):
        return jax.lax.cond(number < 4, lambda b: b @ b, lambda b: b, b), None

    found = forward_flops(lambda a: jax.lax.scan(all_but_the_last, a, jnp.arange(5))[0], a)
    assert found == 4 * 2 * 4**3
    constant = forward_flops(lambda a: jax.lax.cond(True, lambda a: a, lambda a: a @ a, a), a)
    assert constant == 0


def test_memory_is_that_of_what_is_held_at_once():
    a = jax.ShapeDtypeStruct((256,), jnp.float32)

    def chain(step):
        def run(a):
            for _ in range(9):
                a = step(a)
            return a

        return run

    def wide(a):
        return sum(jnp.sin(a * i) for i in range(9)), [jnp.cos(a * i) for i in range(9)]

    assert peak_bytes(jax.make_jaxpr(chain(jnp.flip))(a)) == 2 * 1024
    assert peak_bytes(jax.make_jaxpr(chain(jnp.sin))(a)) == 1024  # in one pass
    assert peak_bytes(jax.make_jaxpr(wide)(a)) >= 10 * 1024


@pytest.mark.parametrize(
    ("expert", "fsdp", "kinds"),
    [
        (1, False, {"all-reduce"}),
        (1, True, {"all-reduce", "all-gather", "reduce-scatter"}),
        (2, False, {"all-reduce", "all-to-all"}),
    ],
)
def test_gradients_are_reduced_outside_of_loops(expert, fsdp, kinds):
    experiment = dataclasses.replace(
        TINY,
        data=SyntheticActionsConfig(frames=2, height=8),
        expert=ResNetConfig(width=8, stage_sizes=(1,)),
        training=TrainingConfig(batch_size=16),
    )
    program = Program("step", experiment, 10, Placing(8, expert, fsdp))
    found = count(program.trace(2)).collectives
    assert {kind for kind, _ in found} == kinds
    reduced = [kind for kind, inside in found if inside]
    assert set(reduced) <= {"all-to-all", "all-reduce"} if expert > 1 else not reduced

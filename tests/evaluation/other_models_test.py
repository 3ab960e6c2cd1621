"""Models that others wrote, in Linen, NNX, Equinox or as two functions, under our attacks."""

import equinox as eqx
import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from jaxmoe.attacks import AttackSettings, build_attack
from jaxmoe.evaluation import Programs, auto_attack
from jaxmoe.mixture import from_functions
from jaxmoe.threat import ThreatModel
from tests.night import at_night

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

KEY = jax.random.key(0)
KERNEL = jax.random.normal(KEY, (48, 5))
X = jax.random.uniform(jax.random.key(1), (6, 4, 4, 3))
EPSILON = 8 / 255
SETTINGS = AttackSettings(steps=3, queries=10)


def flat(x):
    return x.reshape(len(x), -1)


def by_hand(kernel, x):
    return flat(x) @ kernel


def linen():
    module = nn.Dense(5, use_bias=False)
    return lambda params, x: module.apply(params, flat(x)), {"params": {"kernel": KERNEL}}


def nnx_model():
    model = nnx.Linear(48, 5, use_bias=False, rngs=nnx.Rngs(0))
    model.kernel[...] = KERNEL
    graph, state = nnx.split(model)
    return lambda state, x: nnx.merge(graph, state)(flat(x)), state


def equinox():
    model = eqx.nn.Linear(48, 5, use_bias=False, key=KEY)
    model = eqx.tree_at(lambda model: model.weight, model, KERNEL.T)
    arrays, rest = eqx.partition(model, eqx.is_array)
    return lambda arrays, x: jax.vmap(eqx.combine(arrays, rest))(flat(x)), arrays


def two_functions():
    """A mixture whose experts are all the same: it says what each of them says."""
    params = {"router": jnp.zeros((48, 2)), "experts": jnp.stack([KERNEL, KERNEL])}
    return from_functions(by_hand, by_hand, num_experts=2, combine="none"), params


def of_x_alone():
    return lambda _, x: by_hand(KERNEL, x), None


LABELS = jnp.argmax(by_hand(KERNEL, X), axis=-1).at[0].add(1) % 5
PROGRAMS = Programs(by_hand)


def attack_all(model, params, **options):
    return auto_attack(
        model,
        params,
        np.asarray(X),
        np.asarray(LABELS),
        epsilon=EPSILON,
        version=["apgd-ce", "square"],
        settings=SETTINGS,
        batch_size=6,
        **options,
    )


@pytest.mark.parametrize(
    "make", [linen, nnx_model, *map(at_night, (of_x_alone, equinox, two_functions))]
)
def test_a_model_of_any_library_is_attacked_as_the_plain_function_is(make):
    model, params = make()
    pgd = jax.jit(build_attack("pgd", model, ThreatModel("linf", EPSILON), SETTINGS))
    plain = jax.jit(build_attack("pgd", by_hand, ThreatModel("linf", EPSILON), SETTINGS))
    found, expected = pgd(KEY, params, X, LABELS), plain(KEY, KERNEL, X, LABELS)
    np.testing.assert_allclose(found.x_adv, expected.x_adv, atol=1e-6)
    result, same = attack_all(model, params), attack_all(by_hand, KERNEL, programs=PROGRAMS)
    np.testing.assert_array_equal(result.robust, same.robust)
    assert [row.standing for row in result.log] == [row.standing for row in same.log]
    assert not result.robust[0]  # wrong when clean

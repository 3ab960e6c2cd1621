"""What every named attack must keep to, whatever it attacks."""

import dataclasses
import os
import subprocess
import sys
import textwrap

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxmoe.attacks import ATTACKS, AttackSettings, build_attack, find_attack
from jaxmoe.threat import ThreatModel, example_keys
from tests.night import at_night

SHAPES = [(4, 3, 2, 2, 1), (4, 2, 3, 1)]
NEED_HEIGHT = ("flicker",)  # the second shape has none
SETTINGS = AttackSettings(steps=3, lam=1e-3, queries=5, shifts=2, sparse_frames=1)
# One of each kind: steps, momentum, router, experts, both, Auto-PGD, FAB, Square, frames, attempts.
OF_A_KIND = (
    *("pgd", "mi-fgsm", "tlga-r", "tla-e", "j-tlga", "apgd-ce", "fab", "square", "sparse"),
    *("tt", "j-tlga-t", "enumerated-route"),
)
KINDS = [
    # Each attack meets both norms and both shapes; most of the pairs at night.
    pytest.param(
        name,
        norm,
        SHAPES[0 if name in NEED_HEIGHT else (place // 2 + l2) % 2],
        marks=[pytest.mark.nightly] * ((place + l2) % 2 or name not in OF_A_KIND),
    )
    for place, name in enumerate(ATTACKS)
    for l2, norm in enumerate(("linf", "l2"))
]
# Of iterates or attempts they return one on which the model is wrong, best by loss or not.
KEEPS_A_WRONG_ONE = (
    *("apgd-ce", "apgd-dlr", "apgd-t", "fab", "fab-t", "square"),
    *("pgd-t", "pgd-r-t", "pgd-e-t", "j-tlga-t", "pgd-each-e", "enumerated-route"),
)


def length(norm, x_adv, x):
    delta = (np.asarray(x_adv, np.float64) - np.asarray(x, np.float64)).reshape(len(x), -1)
    return np.abs(delta).max(1) if norm == "linf" else np.sqrt((delta**2).sum(1))


@pytest.mark.parametrize(("name", "norm", "shape"), KINDS)
@given(data=st.data())
@settings(max_examples=12, deadline=None)
def test_what_is_returned_is_allowed_repeatable_and_the_examples_own(
    small, run_attack, name, norm, shape, data
):
    epsilon = data.draw(st.one_of(st.just(0.0), st.floats(1e-3, 1.0)))
    frames = np.array(data.draw(st.lists(st.booleans(), min_size=shape[1], max_size=shape[1])))
    seed = data.draw(st.integers(0, 1000))
    x = np.random.default_rng(seed).uniform(size=shape).astype(np.float32)
    y = np.random.default_rng(seed).integers(0, 4, shape[0])
    threat = ThreatModel(norm, jnp.float32(epsilon), frames=jnp.asarray(frames))
    keys = example_keys(jax.random.key(seed), jnp.arange(shape[0]))
    result = run_attack(name, keys, x, y, threat, SETTINGS)

    assert (length(norm, result.x_adv, x) <= epsilon + 1e-6).all()
    assert (result.x_adv >= 0).all()
    assert (result.x_adv <= 1).all()
    np.testing.assert_array_equal(result.x_adv[:, ~frames], x[:, ~frames])
    if epsilon == 0:
        np.testing.assert_array_equal(result.x_adv, x)
    assert result.finite.all()
    if name not in KEEPS_A_WRONG_ONE:
        np.testing.assert_array_equal(result.loss, result.loss_trace.max(0))

    again = run_attack(name, keys, x, y, threat, SETTINGS)
    np.testing.assert_array_equal(again.x_adv, result.x_adv)
    order = np.array([2, 0, 3, 1])
    shuffled = run_attack(name, keys[order], x[order], y[order], threat, SETTINGS)
    np.testing.assert_allclose(shuffled.x_adv, result.x_adv[order], atol=1e-6)


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=[pytest.mark.nightly] * (name not in ("pgd", "j-tlga")))
        for name in ATTACKS
        # The last look of FAB is at what it returns, and Square stops where all clips are wrong.
        if not name.startswith(("fab", "square"))
    ],
)
def test_more_steps_in_a_smaller_batch_go_on_where_fewer_ended(small, run_attack, name):
    s = small(SHAPES[0])
    threat = ThreatModel("linf", jnp.float32(0.1), frames=jnp.ones(SHAPES[0][1], bool))
    keys = example_keys(jax.random.key(0), jnp.arange(4))
    short = run_attack(name, keys, s.x, s.y, threat, SETTINGS)
    longer = dataclasses.replace(SETTINGS, steps=6, queries=5000)
    long = run_attack(name, keys[:2], s.x[:2], s.y[:2], threat, longer)
    looks, more = (find_attack(name).steps(given) + 1 for given in (SETTINGS, longer))
    np.testing.assert_allclose(long.loss_trace[:looks], short.loss_trace[:looks, :2], rtol=1e-4)
    if len(long.loss_trace) == more:  # of several attempts, any may be the one that is returned
        assert (long.loss >= short.loss[:2] - 1e-5).all()


def test_results_do_not_depend_on_the_number_of_devices():
    """One clip on each of four devices, against all four on one."""
    script = """
        import jax, jax.numpy as jnp, numpy as np
        from jaxmoe.attacks import AttackSettings, build_attack
        from jaxmoe.mixture import from_functions
        from jaxmoe.threat import ThreatModel, example_keys

        assert jax.device_count() == 4
        flat = lambda x: x.reshape(x.shape[0], -1)
        moe = from_functions(lambda p, x: flat(x) @ p, lambda p, x: jnp.tanh(flat(x) @ p),
                             num_experts=3, block_size=1)
        a, b, c, d = jax.random.split(jax.random.key(0), 4)
        params = {"router": jax.random.normal(a, (12, 3)),
                  "experts": jax.random.normal(b, (3, 12, 4))}
        clips = example_keys(d, jnp.arange(4)), jax.random.uniform(c, (4, 3, 4, 1)), jnp.arange(4)

        def run(params, keys, x, y):
            return {name: build_attack(name, moe, ThreatModel("linf", 0.1),
                                       AttackSettings(steps=4, lam=1e-3))(keys, params, x, y).x_adv
                    for name in ("mi-fgsm", "pgd-e", "j-tlga")}

        whole = jax.jit(run)(params, *clips)
        alone = jax.pmap(run, in_axes=(None, 0, 0, 0))(params, *(a[:, None] for a in clips))
        for name, want in whole.items():
            np.testing.assert_allclose(alone[name][:, 0], want, atol=1e-6, err_msg=name)
            assert not np.allclose(want, clips[1])
        print("same")
    """
    flags = os.environ["XLA_FLAGS"] + " --xla_force_host_platform_device_count=4"
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script)],
        env=os.environ | {"XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.stdout.strip() == "same", done.stderr


@pytest.mark.parametrize(
    "name", [name for name, attack in ATTACKS.items() if attack.component != "model"]
)
def test_an_attack_on_a_part_needs_a_mixture(name):
    with pytest.raises(ValueError, match="need a Mixture"):
        build_attack(name, lambda params, x: x @ params, ThreatModel())


@pytest.mark.parametrize(
    ("name", "part", "gradients", "looks"),
    [
        at_night("fgsm", "apply", 1, 2),
        at_night("mi-fgsm", "apply", 5, 6),
        at_night("pgd", "apply", 10, 12),
        ("j-tlga", "apply", 10, 12),
        at_night("apgd-ce", "apply", 12, 12),
        at_night("apgd-t", "apply", 36, 36),
        ("fab", "apply", 40, 12),
        at_night("fab-t", "apply", 30, 36),
        at_night("square", "apply", 0, 4),  # its best after the first look and after the last
        at_night("pgd-t", "apply", 30, 36),  # three wrong classes of four
        at_night("pgd-r-t", "route", 20, 24),  # two other experts of three
        at_night("pgd-e-t", "select", 30, 36),
        at_night("j-tlga-t", "apply", 30, 36),
        at_night("pgd-each-e", "expert", 30, 36),  # three experts
        ("enumerated-route", "expert", 36, 36),
        ("tt", "apply", 35, 6),
        at_night("sparse", "apply", 11, 12),
        at_night("flicker", "apply", 10, 12),
    ],
)
def test_gradients_and_looks_are_those_that_the_attack_takes(small, name, part, gradients, looks):
    taken = []

    @jax.custom_vjp
    def watched(x):
        return x

    def backward(_, gradient):
        jax.debug.callback(lambda: taken.append(1))
        return (gradient,)

    watched.defvjp(lambda x: (x, None), backward)
    s = small(SHAPES[0])
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf, jnp.float32), s.params)
    mixture = s.mixture()
    whole = getattr(mixture, part)
    model = mixture._replace(**{part: lambda params, x, *more: whole(params, watched(x), *more)})
    given_settings = AttackSettings(steps=5, restarts=2, queries=5)
    attack = build_attack(name, model, ThreatModel(), given_settings)
    x = jnp.asarray(s.x, jnp.float32)
    result = jax.jit(attack)(jax.random.key(0), params, x, jnp.asarray(s.y))
    jax.effects_barrier()
    assert int(result.gradients) == len(taken) == gradients
    assert result.loss_trace.shape[0] == looks


@pytest.mark.parametrize("name", ["J_TLGA", "j-tlga", "J-TLGA"])
def test_names_in_any_case(name):
    assert find_attack(name).title == "J-TLGA"


def test_a_misspelt_name_gets_the_nearest_one():
    with pytest.raises(
        ValueError, match=r"attack: 'jtlga' is no attack; did you mean j-tlga\? All are fgsm, "
    ):
        find_attack("jtlga")
    with pytest.raises(ValueError, match=r"attack: '0' is no attack\. All are fgsm, "):
        find_attack("0")

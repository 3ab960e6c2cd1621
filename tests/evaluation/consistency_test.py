"""Models whose answers depend on the rest of the batch are found; honest ones are left alone."""

import itertools
import types

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest

from jaxmoe.attacks import Randomized
from jaxmoe.evaluation import Programs
from jaxmoe.evaluation.diagnostics.consistency import consistency_check
from jaxmoe.evaluation.engine.summary import to_host
from jaxmoe.mixture import from_modules
from jaxmoe.models import LinearRouter, ResNet
from tests.night import at_night

X = np.random.default_rng(0).random((10, 8, 8, 3), np.float32)
WEIGHTS = jax.random.normal(jax.random.key(0), (192, 4))
LABELS = np.zeros(10, np.int32)


def batch_of(x, valid=None):
    labels, index = np.zeros(len(x), np.int32), np.arange(len(x))
    valid = np.ones(len(x), bool) if valid is None else np.asarray(valid)
    return {"clip": x, "label": labels, "index": index, "valid": valid}


def check(model, params=None, batch=None):
    batch = batch_of(X) if batch is None else batch
    programs = Programs(model)
    look = lambda batch: to_host(programs.clean(params, batch)[0])  # noqa: E731
    found = consistency_check(model, params, look, batch, look(batch))
    return found, programs


def linear(_, x):
    return x.reshape(len(x), -1) @ WEIGHTS


def statistics(params, x):
    """Batch norm in training mode."""
    z = linear(params, x)
    return (z - z.mean(0, keepdims=True)) / jnp.sqrt(z.var(0, keepdims=True) + 1e-5)


def one_key(params, x):
    """Noise that belongs to a place in the batch."""
    z = linear(params, x)
    return z * jax.random.bernoulli(jax.random.key(7), 0.7, z.shape).astype(z.dtype)


def capacity(params, x, slots=4):
    """Two experts, each of which takes the first few clips that are sent to it."""
    z = linear(params, x)
    goes = jax.nn.one_hot(jnp.argmax(z[:, :2], -1), 2, dtype=jnp.int32)
    rank = jnp.sum(goes * jnp.cumsum(goes, axis=0), axis=-1)
    return jnp.where(rank[:, None] <= slots, z, 0.0)


def softmax_over_the_batch(params, x):
    return jax.nn.softmax(linear(params, x), axis=0)


def stateful():
    """Another answer at each look."""
    looks = itertools.count()
    noise = lambda: np.float32(next(looks))  # noqa: E731

    def apply(params, x):
        seen = jax.pure_callback(noise, jax.ShapeDtypeStruct((), jnp.float32))
        return linear(params, x) + seen

    return apply


@pytest.mark.parametrize(
    ("model", "said"),
    [
        (statistics, "place in the batch or on the other examples"),
        (one_key, "place in the batch or on the other examples"),
        (capacity, "place in the batch or on the other examples"),
        (softmax_over_the_batch, "place in the batch or on the other examples"),
        (stateful(), "Two looks at the same batch differ"),
    ],
    ids=["statistics", "one key", "capacity", "softmax", "state"],
)
def test_what_depends_on_the_batch_is_flagged_without_another_program(model, said):
    found, programs = check(model)
    assert (found.verdict, found.kind) == ("flag", "model")
    assert said in found.sentence
    assert sum(programs.compilations.values()) == 1


@pytest.mark.parametrize("model", [statistics, one_key])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_small_batches_are_told_too(model, count):
    assert check(model, batch=batch_of(X[:count]))[0].verdict == "flag"
    padded = batch_of(X[:4], np.arange(4) < count)
    assert check(model, batch=padded)[0].verdict == "flag"


@pytest.mark.parametrize("count", [1, 2, 3, 10])
def test_an_honest_model_passes_at_every_size(count):
    found, _ = check(linear, batch=batch_of(X[:count]))
    assert found.verdict == "pass"
    assert found.value < 1e-5
    assert check(linear, batch=batch_of(X[:4], np.arange(4) == 3))[0].verdict == "pass"
    grey = batch_of((255 * X[:count]).astype(np.uint8))
    assert check(linear, batch=grey)[0].verdict == "pass"


@pytest.mark.parametrize("dtype", [at_night(jnp.float32), jnp.bfloat16])
def test_an_honest_mixture_of_networks_passes_in_both_precisions(dtype):
    expert = ResNet(3, width=4, stage_sizes=(1, 1), dtype=dtype)
    mixture = from_modules(LinearRouter(2), expert, num_experts=2, top_k=1)
    params = jax.jit(mixture.init)(jax.random.key(0), jnp.asarray(X))
    assert check(mixture, params)[0].verdict == "pass"


def test_rounding_passes_where_the_model_computes_in_half_precision_alone():
    def rounds(params, x):
        z = linear(params, x).astype(jnp.bfloat16)
        place = jnp.arange(len(x), dtype=jnp.bfloat16)[:, None] / 1024
        return (z * (1 + place)).astype(jnp.float32)

    found, _ = check(rounds)
    assert 1e-3 < found.value < 0.02
    assert found.verdict == "pass"
    exact = lambda p, x: linear(p, x) * (1 + jnp.arange(len(x), dtype=jnp.float32)[:, None] / 1024)  # noqa: E731
    assert check(exact)[0].verdict == "flag"


def test_a_clip_between_two_experts_may_be_sent_to_either():
    """Rounding decides there, and may decide otherwise at another place."""

    def route(scale, x):
        rounding = 1e-4 * jnp.arange(len(x), dtype=x.dtype)[:, None]
        return planted.route(scale, x) + rounding * jnp.array([[1.0, -1.0]])

    mixture = planted.mixture(router=route)
    clips = np.full((4, 2, 8, 8, 1), 0.9, np.float32)
    clips[3, 0] = 0.5 - 2.5e-5  # goes to expert 0 at place 3, to expert 1 at place 2
    assert check(mixture, planted.PARAMS, batch_of(clips))[0].verdict == "pass"
    # The same change of the logits themselves is no rounding.
    plain = lambda params, x: mixture.apply(params, x)  # noqa: E731
    assert check(plain, planted.PARAMS, batch_of(clips))[0].verdict == "flag"


def test_what_all_outputs_share_hides_nothing():
    shifted = lambda params, x: statistics(params, x) + 1e4  # noqa: E731
    honest = lambda params, x: linear(params, x) + 1e4  # noqa: E731
    assert check(shifted)[0].verdict == "flag"
    assert check(honest)[0].verdict == "pass"


def test_a_randomized_model_is_declared_random():
    model = Randomized(lambda params, x, key: linear(params, x))
    found = consistency_check(model, None, None, batch_of(X), None)
    assert found.verdict == "not run"


def test_dropout_and_batch_norm_of_linen():
    class Net(nn.Module):
        @nn.compact
        def __call__(self, x):
            x = nn.BatchNorm(use_running_average=False)(x.reshape(len(x), -1))
            return nn.Dense(3)(nn.Dropout(0.3, deterministic=False)(x))

    keys = {"params": jax.random.key(0), "dropout": jax.random.key(1)}
    variables = Net().init(keys, jnp.asarray(X))
    rngs = {"dropout": jax.random.key(7)}
    apply = lambda v, x: Net().apply(v, x, rngs=rngs, mutable=["batch_stats"])[0]  # noqa: E731
    assert check(apply, variables)[0].verdict == "flag"


def test_outputs_that_are_not_finite_beside_others_are_flagged():
    looks = iter([np.ones((10, 2), np.float32), np.full((10, 2), np.nan, np.float32)] * 2)
    look = lambda batch: types.SimpleNamespace(logits=next(looks), router=None, experts=None)  # noqa: E731
    found = consistency_check(linear, None, look, batch_of(X), look(None))
    assert (found.verdict, found.value) == ("flag", np.inf)

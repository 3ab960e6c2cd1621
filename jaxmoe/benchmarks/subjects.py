"""Subjects of the benchmarks: the 3D ResNet of the peers' comparison, mixtures, clips of noise."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxmoe.mixture import Mixture, from_functions
from jaxmoe.models import ConvRouter, ResNet

CLASSES = 10
# Where a GPU is, sizes can be those of real work; two CPU cores should be done in minutes.
_SCALE = {"cpu": 1, "gpu": 4, "tpu": 4}


def scale() -> int:
    """How many times as many clips this platform gets as a CPU."""
    return _SCALE.get(jax.default_backend(), 1)


def dtypes() -> tuple[str, ...]:
    """The computation types worth measuring here: CPUs have no fast bfloat16."""
    return ("float32",) if jax.default_backend() == "cpu" else ("float32", "bfloat16")


def resnet(dtype: str = "float32") -> nn.Module:
    """A 3D ResNet of width 32, four stages of one block."""
    return ResNet(
        num_classes=CLASSES,
        width=32,
        stage_sizes=(1, 1, 1, 1),
        stem="small",
        dtype=jnp.dtype(dtype),
    )


def small_resnet() -> nn.Module:
    """A 3D ResNet of two stages, where what is counted does not depend on the size."""
    return ResNet(num_classes=CLASSES, width=8, stage_sizes=(1, 1), stem="small")


def clips(batch: int, frames: int, size: int) -> tuple[jax.Array, jax.Array]:
    """Noise, pixels in [0, 1], and labels."""
    rng = np.random.default_rng(0)
    x = rng.random((batch, frames, size, size, 3), np.float32)
    return jnp.asarray(x), jnp.asarray(rng.integers(0, CLASSES, batch), jnp.int32)


def even_mixture(num_experts: int, dtype: str = "float32") -> tuple[Mixture, Any, Any]:
    """A top-1 mixture that gives each expert as many clips as the others, its parts' modules.

    A bias by the clip's place in the batch decides: the load of a mixture without training is
    accidental, and the router costs the same.

    Returns:
      The mixture, and the `apply` functions of its router and of one expert.
    """
    # Two stages: a third of the time to compile of four, and the dispatch is the same.
    expert = ResNet(
        num_classes=CLASSES,
        width=24,
        stage_sizes=(1, 1),
        stem="small",
        dtype=jnp.dtype(dtype),
    )
    router = ConvRouter(num_experts=num_experts, width=8, dtype=jnp.dtype(dtype))
    mixture, route = evenly_routed(router, expert, num_experts)
    return mixture, route, expert.apply


def evenly_routed(
    router: nn.Module, expert: nn.Module, num_experts: int, **options: Any
) -> tuple[Mixture, Any]:
    """A mixture whose expert of a clip is decided by the clip's place in the batch, and its route.

    Args:
      router: its logits decide on the weights alone.
      expert: of which there are `num_experts`.
      num_experts: M.
      **options: of `from_functions`.
    """

    def route(params, x):
        turn = jnp.arange(x.shape[0]) % num_experts
        return router.apply(params, x) + 10 * jax.nn.one_hot(turn, num_experts)

    def init(key, x):
        router_key, expert_key = jax.random.split(key)
        keys = jax.random.split(expert_key, num_experts)
        experts = jax.vmap(expert.init, in_axes=(0, None))(keys, x)
        return {"router": router.init(router_key, x), "experts": experts}

    made = from_functions(route, expert.apply, num_experts=num_experts, init=init, **options)
    return made, route


def linear_mixture() -> tuple[Mixture, Any]:
    """A mixture of two linear experts on 48 numbers, and its params: compiles at once."""

    def linear(params, x):
        return x.reshape(x.shape[0], -1) @ params

    keys = jax.random.split(jax.random.key(0))
    params = {
        "router": jax.random.normal(keys[0], (48, 2)),
        "experts": jax.random.normal(keys[1], (2, 48, 3)),
    }
    return from_functions(linear, linear, num_experts=2), params


def linear_clips(*batch: int) -> jax.Array:
    """uint8 clips 2x2x4x3 for the linear mixture."""
    return jnp.asarray(np.random.default_rng(0).integers(0, 256, (*batch, 2, 2, 4, 3), np.uint8))

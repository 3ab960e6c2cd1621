"""What the tests of models share."""

from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest


@pytest.fixture(scope="session")
def variables_of() -> Callable[[nn.Module, jax.Array], dict]:
    """Variables drawn by NumPy: compiling a module's random initialisation takes seconds."""

    def draw(module: nn.Module, x: jax.Array) -> dict:
        rng = np.random.default_rng(0)
        shapes = jax.eval_shape(module.init, jax.random.key(0), x)

        def leaf(path: tuple, shape: jax.ShapeDtypeStruct) -> jax.Array:
            if path[-1].key == "kernel":
                fan_in = np.prod(shape.shape[:-1])
                return jnp.asarray(rng.normal(size=shape.shape) / np.sqrt(fan_in), shape.dtype)
            return jnp.asarray(rng.uniform(0.5, 1.5, size=shape.shape), shape.dtype)

        return jax.tree_util.tree_map_with_path(leaf, shapes)

    return draw

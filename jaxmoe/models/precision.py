"""The dtype in which sums are accumulated."""

import jax.numpy as jnp


def accumulation_dtype(dtype: jnp.dtype) -> jnp.dtype:
    """float32 for the half precisions, else `dtype` itself."""
    return jnp.dtype(jnp.float32) if jnp.finfo(dtype).bits < 32 else jnp.dtype(dtype)

"""Steps are traced as training runs them."""

import jax
import pytest


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield

"""What every test shares: strict promotion, and the folder with real videos where there is one."""

import os
import pathlib

import pytest

# One cache for this process and the commands it starts: a program is compiled once per suite.
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import jax

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder that `JAXMOE_DATA` names, with `ut_interaction/`, `clips/` and images in it."""
    folder = os.environ.get("JAXMOE_DATA")
    if not folder:
        pytest.skip("JAXMOE_DATA is not set: no real videos to test on")
    path = pathlib.Path(folder).resolve()
    if not (path / "ut_interaction" / "manifest.csv").is_file():
        pytest.fail(f"JAXMOE_DATA={folder} holds no ut_interaction/manifest.csv")
    return path

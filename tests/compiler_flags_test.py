"""A script that uses the library computes right on CPUs; the user's flags stay."""

import importlib.metadata
import os
import subprocess
import sys
import warnings

import pytest

import jaxmoe.compiler_flags
from jaxmoe.compiler_flags import FLAG, VALUE, ask_for_right_numbers

# A kernel of one number everywhere, and a mean: what some jaxlibs fuse wrongly.
SCRIPT = """
import sys, warnings
import jax, jax.numpy as jnp, numpy as np
if sys.argv[1:]:
    jnp.ones(3).block_until_ready()
with warnings.catch_warnings(record=True) as said:
    warnings.simplefilter("always")
    import jaxmoe
print(*[str(warning.message) for warning in said if "jaxmoe" in str(warning.message)])
if not sys.argv[1:]:
    from jaxmoe.models import conv

    x = np.random.default_rng(0).uniform(size=(2, 28, 28, 25)).astype(np.float32)
    kernel = np.full((5, 5, 25, 10), 0.25, np.float32)
    axes = ("NHWC", "HWIO", "NHWC")
    windows = [x[:, i : i + 24, j : j + 24] for i in range(5) for j in range(5)]
    want = 0.25 * sum(window.astype(np.float64).sum(-1) for window in windows).mean((1, 2))
    native = lambda x: jax.lax.conv_general_dilated(
        x, kernel, (1, 1), "VALID", dimension_numbers=axes
    )
    ours = lambda x: conv(x, jnp.asarray(kernel), padding="VALID")
    for model in (native, ours):
        found = jax.jit(lambda x: jnp.mean(model(x), axis=(1, 2)))(x)
        np.testing.assert_allclose(found, np.repeat(want[:, None], 10, 1), rtol=1e-4)
"""


def run(*arguments: str) -> str:
    plain = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, *arguments],
        env=plain | {"JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def affected() -> bool:
    return importlib.metadata.version("jaxlib").startswith(("0.10.", "0.11.", "0.12."))


def test_a_constant_kernel_and_a_mean_in_a_script_are_numpys():
    assert run() == ""


def test_a_script_that_imports_it_too_late_is_told_what_to_set():
    said = run("late")
    assert (f"XLA_FLAGS={FLAG}={VALUE}" in said) == affected()


@pytest.mark.parametrize(
    ("version", "given", "kept"),
    [
        ("0.10.2", "", f"{FLAG}={VALUE}"),
        ("0.12.0", "--xla_dump_to=/x", f"--xla_dump_to=/x {FLAG}={VALUE}"),
        ("0.12.0", f"{FLAG}=individual_convolution", f"{FLAG}=individual_convolution"),
        ("0.12.0", "flags.txt", "flags.txt"),  # XLA reads the file of that name
        ("0.9.1", "", ""),  # an unknown flag would end the process
        ("0.13.0", "", ""),
        ("1.0.0", "--xla_dump_to=/x", "--xla_dump_to=/x"),
    ],
)
def test_it_is_added_to_the_users_flags_where_this_jaxlib_knows_it(
    monkeypatch, version, given, kept
):
    monkeypatch.setenv("XLA_FLAGS", given)
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)
    monkeypatch.setattr(jaxmoe.compiler_flags, "_computes_on_cpus_already", lambda: False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        ask_for_right_numbers()
    assert os.environ["XLA_FLAGS"] == kept

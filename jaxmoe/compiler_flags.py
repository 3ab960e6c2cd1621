"""A flag without which XLA computes some models wrongly on CPUs; set when jaxmoe is imported.

jaxlib 0.10 to 0.12 may compute a mean or a maximum of a convolution whose kernel is one number
everywhere from memory that nobody wrote: 0.083 for 2.071, or infinity, in plain JAX under `jit`. It
comes of the reductions that XLA hands to YNNPACK. With the flag that library is handed matmuls
alone, which are faster by it.
"""

import importlib.metadata
import os
import sys
import warnings

FLAG = "--xla_cpu_experimental_ynn_fusion_type"
VALUE = "individual_dot"
# A jaxlib ends the process at the name of a flag that it does not know.
KNOWN_TO = ("0.10.", "0.11.", "0.12.")


def ask_for_right_numbers() -> None:
    """Adds the flag to `XLA_FLAGS`, where the user has not set it and this jaxlib knows it.

    It has to come before JAX computes for the first time; after that it warns on a CPU.
    """
    flags = os.environ.get("XLA_FLAGS", "")
    names_a_file = bool(flags) and not flags.lstrip().startswith("-")
    if names_a_file or FLAG in flags or not _is_affected():
        return
    os.environ["XLA_FLAGS"] = f"{flags} {FLAG}={VALUE}".strip()
    if _computes_on_cpus_already():
        warnings.warn(
            "jaxmoe: imported after JAX had begun to compute. On CPUs this jaxlib computes some "
            "convolutions with constant kernels wrongly; import jaxmoe before, or set "
            f"XLA_FLAGS={FLAG}={VALUE}",
            RuntimeWarning,
            stacklevel=3,
        )


def _is_affected() -> bool:
    try:
        return importlib.metadata.version("jaxlib").startswith(KNOWN_TO)
    except importlib.metadata.PackageNotFoundError:
        return False


def _computes_on_cpus_already() -> bool:
    """Returns whether JAX has made its CPU backend, which reads the flags once."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    started = getattr(bridge, "backends_are_initialized", lambda: False)()
    return started and sys.modules["jax"].default_backend() == "cpu"

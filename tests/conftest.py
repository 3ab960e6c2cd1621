"""What every test shares: strict promotion, and the folder with real videos where there is one."""

import atexit
import gc
import importlib.metadata
import os
import pathlib
import shutil
import tempfile

import pytest

os.environ.setdefault("JAX_PLATFORMS", "cpu")
# One cache for all processes of the suite, and the commands they start: a program is compiled once.
if "JAX_COMPILATION_CACHE_DIR" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="jaxmoe-programs-")
    atexit.register(shutil.rmtree, os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0")
# Compilation is most of the suite's time: LLVM optimises nothing, and no fusion is emitted as MLIR.
if "XLA_FLAGS" not in os.environ:
    os.environ["XLA_FLAGS"] = (
        "--xla_backend_optimization_level=0 --xla_cpu_parallel_codegen_split_count=1"
    )
    if importlib.metadata.version("jaxlib").startswith("0.10."):  # a later one ends at its name
        os.environ["XLA_FLAGS"] += " --xla_cpu_use_fusion_emitters=false"

import jax

import jaxmoe  # noqa: F401  # adds a flag of its own, before JAX computes

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder that `JAXMOE_DATA` names, with `ut_interaction/`, `clips/` and `camvid/`."""
    folder = os.environ.get("JAXMOE_DATA")
    if not folder:
        pytest.skip("JAXMOE_DATA is not set: no real videos to test on")
    path = pathlib.Path(folder).resolve()
    if not (path / "ut_interaction" / "manifest.csv").is_file():
        pytest.fail(f"JAXMOE_DATA={folder} holds no ut_interaction/manifest.csv")
    return path


LONGEST = (
    "resume_test.py",
    "segmentation_test.py",
    "image_test.py",
    "readme_test.py",
    "kills_test.py",
    "study_test.py",
    "devices_test.py",
    "evaluate_test.py",
    "import_test.py",
    "step_test.py",
    "defences_test.py",
    "specialists_test.py",
)


def pytest_collection_finish() -> None:
    """The collector looks less often: tracing makes millions of objects, and imports stay."""
    gc.freeze()
    gc.set_threshold(200_000, 20, 100)


def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
    """A file's programs are let go: thousands of them make each new one slower to write down."""
    if nextitem is None or nextitem.path != item.path:
        jax.clear_caches()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The longest files first: at the end one process would wait for the other."""
    items.sort(key=lambda item: item.path.name not in LONGEST)

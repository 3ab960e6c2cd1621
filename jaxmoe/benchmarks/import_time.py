"""`import jaxmoe` against the import of the libraries that it is made of, each in a new process."""

import subprocess
import sys

from jaxmoe.benchmarks.row import Row
from jaxmoe.benchmarks.timing import compare

BAR = 1.5


def run() -> list[Row]:
    """One row."""
    return [
        compare(
            "import jaxmoe / import jax, flax, optax",
            BAR,
            {
                "jaxmoe": lambda: _python("import jaxmoe"),
                "jax, flax, optax": lambda: _python("import jax, flax, optax"),
            },
            "new processes, interpreter included",
        )
    ]


def _python(code: str) -> None:
    subprocess.run([sys.executable, "-c", code], check=True)

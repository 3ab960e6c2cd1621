"""Attack, train and judge mixture-of-experts models, part by part, in JAX.

`attack`, `auto_attack`, `evaluate`, `fit` and `report` do in one call what most people come for.

Rooms, from the ground up: `threat`, `models`, `mixture`, `attacks`, `training`, `data`, `parallel`,
`evaluation`, `reporting`, `config`, `runs`. Each is imported when first touched. Import jaxmoe
before JAX computes: on CPUs it sets a flag that some numbers need (`compiler_flags`).
"""

import importlib
from collections.abc import Callable
from types import ModuleType

from jaxmoe.compiler_flags import ask_for_right_numbers

__version__ = "0.1.0"

_ROOMS = (
    "attacks",
    "config",
    "data",
    "evaluation",
    "mixture",
    "models",
    "parallel",
    "reporting",
    "runs",
    "threat",
    "training",
)

_CALLS = ("attack", "auto_attack", "evaluate", "fit", "report")  # of `api`

__all__ = [*_CALLS, *_ROOMS, "__version__"]


ask_for_right_numbers()


def __getattr__(name: str) -> ModuleType | Callable:
    if name in _CALLS:
        return getattr(importlib.import_module("jaxmoe.api"), name)
    if name in _ROOMS:
        return importlib.import_module(f"jaxmoe.{name}")
    raise AttributeError(f"module 'jaxmoe' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted(__all__)

"""Checks of the fields of a module; each error is one line."""

from collections.abc import Sequence

import flax.linen as nn


def check_positive(module: nn.Module, *names: str) -> None:
    """Raises a ValueError for a field below 1."""
    for name in names:
        if getattr(module, name) < 1:
            raise ValueError(f"{name} must be at least 1, got {getattr(module, name)}")


def check_choice(module: nn.Module, name: str, choices: Sequence) -> None:
    """Raises a ValueError for a field that is none of `choices`."""
    if getattr(module, name) not in choices:
        raise ValueError(f"{name} must be one of {tuple(choices)}, got {getattr(module, name)!r}")


def check_stage_sizes(module: nn.Module, most: int | None = None) -> None:
    """Checks the blocks per stage, if they are given: one or more stages, each of one or more."""
    sizes = module.stage_sizes
    if sizes is None:
        return
    if not sizes or any(blocks < 1 for blocks in sizes) or len(sizes) > (most or len(sizes)):
        count = "" if most is None else f", at most {most} of them"
        raise ValueError(f"stage_sizes must be integers >= 1{count}, got {sizes}")

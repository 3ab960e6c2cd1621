"""`AttackSettings` as a pytree: its numbers are arrays to the compiler, the rest is static."""

import dataclasses

import jax

from jaxmoe.settings import ARRAYS, AttackSettings

__all__ = ["AttackSettings"]

jax.tree_util.register_dataclass(
    AttackSettings,
    data_fields=ARRAYS,
    meta_fields=[f.name for f in dataclasses.fields(AttackSettings) if f.name not in ARRAYS],
)

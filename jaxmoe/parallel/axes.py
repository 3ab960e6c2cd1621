"""The axes of devices, by the names that a step reduces over."""

from typing import Any, NamedTuple

import jax

DATA = "data"  # examples are split over it, and params that are sharded at rest
EXPERT = "expert"  # examples are split over it too, and experts


class Axes(NamedTuple):
    """Names of the axes that a per-device function may reduce over; None where there is none."""

    data: str | None = None
    expert: str | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All axes over which examples are split."""
        return tuple(name for name in self if name is not None)

    def mean(self, tree: Any) -> Any:
        """Returns the mean over all devices of every leaf, in one collective."""
        return jax.lax.pmean(tree, self.names) if self.names else tree

    def any(self, flags: jax.Array) -> jax.Array:
        """Returns where any device has True."""
        return jax.lax.pmax(flags.astype("int32"), self.names) > 0 if self.names else flags

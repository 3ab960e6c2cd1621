"""The routers and gates that a mixture may have, each with its own fields.

A router of one's own is a subclass of `RouterConfig` in `ROUTERS`.
"""

import dataclasses
from typing import TYPE_CHECKING, ClassVar

from jaxmoe.options import option
from jaxmoe.registry import Entry, Registry

if TYPE_CHECKING:
    import flax.linen as nn

ROUTERS = Registry(
    "router",
    "ROUTERS",
    {
        "conv": f"{__name__}:ConvRouterConfig",
        "linear": f"{__name__}:LinearRouterConfig",
        "pooled": f"{__name__}:PooledRouterConfig",
        "simple_gate": f"{__name__}:SimpleGateConfig",
        "classwise_gate": f"{__name__}:ClasswiseGateConfig",
    },
)


@dataclasses.dataclass(frozen=True)
class RouterConfig(Entry):
    """A router: it tells how much each expert counts.

    Attributes:
      is_gate: it reads the experts' features, and its mixture is dense; others read the input.
    """

    registry: ClassVar[Registry] = ROUTERS
    is_gate: ClassVar[bool] = False

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns the Flax module `x -> [B, M]`; of a gate `features -> [B, M]` or `[B, K, M]`.

        Args:
          num_experts: M.
          num_classes: K.
          dtype: that of the experts' computation.
        """
        raise NotImplementedError


@dataclasses.dataclass(frozen=True)
class ConvRouterConfig(RouterConfig):
    """Three convolutions and a global average."""

    name: ClassVar[str] = "conv"

    width: int = option(
        8, "channels of the first convolution; the others have twice as many", least=1
    )

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns a `models.ConvRouter`."""
        import jax.numpy as jnp

        from jaxmoe.models import ConvRouter

        return ConvRouter(num_experts, width=self.width, dtype=jnp.dtype(dtype))


@dataclasses.dataclass(frozen=True)
class LinearRouterConfig(RouterConfig):
    """A linear map of the pixels."""

    name: ClassVar[str] = "linear"

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns a `models.LinearRouter`."""
        from jaxmoe.models import LinearRouter

        return LinearRouter(num_experts)


@dataclasses.dataclass(frozen=True)
class PooledRouterConfig(RouterConfig):
    """A linear map of pixels that are averaged over a coarse grid."""

    name: ClassVar[str] = "pooled"

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns a `models.PooledRouter`."""
        from jaxmoe.models import PooledRouter

        return PooledRouter(num_experts)


@dataclasses.dataclass(frozen=True)
class SimpleGateConfig(RouterConfig):
    """A gate: one weight for each expert, for the whole image."""

    name: ClassVar[str] = "simple_gate"
    is_gate: ClassVar[bool] = True

    width: int = option(8, "units of the hidden layer; 128 in the paper", least=1)

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns a `models.SimpleGate`."""
        from jaxmoe.models import SimpleGate

        return SimpleGate(num_experts, hidden=self.width)


@dataclasses.dataclass(frozen=True)
class ClasswiseGateConfig(RouterConfig):
    """A gate: one weight for each expert and class."""

    name: ClassVar[str] = "classwise_gate"
    is_gate: ClassVar[bool] = True

    width: int = option(8, "units of each hidden layer; 128 in the paper", least=1)

    def build(self, num_experts: int, num_classes: int, dtype: str) -> "nn.Module":
        """Returns a `models.ClasswiseGate`."""
        from jaxmoe.models import ClasswiseGate

        return ClasswiseGate(num_experts, num_classes, hidden=self.width)

"""Experts and routers by name, for configurations."""

import dataclasses
import difflib
from typing import Any

import flax.linen as nn

from jaxmoe.models.deeplab import DeepLabV3Plus
from jaxmoe.models.frrn import FRRN
from jaxmoe.models.gates import ClasswiseGate, SimpleGate
from jaxmoe.models.resnet import ResNet
from jaxmoe.models.routers import ConvRouter, LinearRouter, PooledRouter
from jaxmoe.models.vit import VisionTransformer

EXPERTS: dict[str, type[nn.Module]] = {
    "resnet": ResNet,
    "vit": VisionTransformer,
    "deeplab": DeepLabV3Plus,
    "frrn": FRRN,
}
ROUTERS: dict[str, type[nn.Module]] = {
    "conv": ConvRouter,
    "linear": LinearRouter,
    "pooled": PooledRouter,
    "simple_gate": SimpleGate,
    "classwise_gate": ClasswiseGate,
}


def build_expert(name: str, **fields: Any) -> nn.Module:
    """An expert module by its name in `EXPERTS`.

    Raises:
      ValueError: an unknown name, a misspelt field, or an impossible value.
    """
    return _build("expert", EXPERTS, name, fields)


def build_router(name: str, **fields: Any) -> nn.Module:
    """A router module by its name in `ROUTERS`.

    Raises:
      ValueError: an unknown name, a misspelt field, or an impossible value.
    """
    return _build("router", ROUTERS, name, fields)


def _build(kind: str, registry: dict[str, type[nn.Module]], name: str, fields: dict) -> nn.Module:
    if name not in registry:
        raise ValueError(_unknown(kind, name, list(registry)))
    module = registry[name]
    valid = [f.name for f in dataclasses.fields(module) if f.name not in ("parent", "name")]
    for field in fields:
        if field not in valid:
            raise ValueError(_unknown(f"field of {kind} {name!r}", field, valid))
    try:
        return module(**fields)
    except TypeError as error:
        raise ValueError(f"{kind} {name!r}: {error}") from error


def _unknown(what: str, given: str, valid: list[str]) -> str:
    nearest = difflib.get_close_matches(given, valid, n=1, cutoff=0.0)[0]
    return f"unknown {what} {given!r}: did you mean {nearest!r}? Valid: {', '.join(valid)}"

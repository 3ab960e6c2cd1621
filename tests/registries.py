"""Registries that are as they were after a test that adds to them."""

import contextlib
from collections.abc import Iterator
from unittest import mock

from jaxmoe import plugins
from jaxmoe.attacks import ATTACKS
from jaxmoe.config import DATASETS, EXPERTS, RECIPES, ROUTERS
from jaxmoe.evaluation import MEASURES


@contextlib.contextmanager
def restored() -> Iterator[None]:
    with contextlib.ExitStack() as stack:
        for registry in (DATASETS, EXPERTS, RECIPES, ROUTERS):
            stack.enter_context(mock.patch.dict(registry._entries))
        for known in (ATTACKS, MEASURES, plugins._loaded):
            stack.enter_context(mock.patch.dict(known))
        yield

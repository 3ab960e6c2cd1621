"""Puts this folder on the path, so that tests share the planted mixtures, and gives a cascade."""

import pathlib
import sys

import pytest

from jaxmoe.attacks import CASCADES, Cascade, stage

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import planted_cascade


@pytest.fixture
def cascade(monkeypatch):
    """A cascade called `two`: FGSM, then PGD with two restarts."""
    monkeypatch.setitem(CASCADES, "two", planted_cascade.TWO)
    monkeypatch.setitem(CASCADES, "short", Cascade("Short", (stage("apgd-t"),)))

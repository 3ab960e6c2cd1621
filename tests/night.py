"""Cases for the nightly run: one of each kind runs by day."""

import functools

import pytest

at_night = functools.partial(pytest.param, marks=pytest.mark.nightly)
"""`pytest.param` of a case that takes long and is of a kind that runs by day too."""

"""Cases for the nightly run, of tests that have others by day."""

import functools

import pytest

at_night = functools.partial(pytest.param, marks=pytest.mark.nightly)
"""`pytest.param` of such a case."""

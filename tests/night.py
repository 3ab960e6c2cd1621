"""Cases for the nightly run, of tests whose other cases run by day."""

import functools

import pytest

at_night = functools.partial(pytest.param, marks=pytest.mark.nightly)
"""`pytest.param` of such a case."""

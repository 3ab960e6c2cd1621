"""The model of time: its parts add up, and more devices never make one faster."""

import collections

import pytest

from jaxmoe.parallel.hardware import CHIPS
from jaxmoe.runs.plan.cost import Assumptions, collective_seconds, efficiencies, time_of
from jaxmoe.runs.plan.count import Counted

ALL = Assumptions(utilization=1.0, link_share=1.0)
V5E = CHIPS["v5e"]


def counted(flops=0, traffic=0, reduced=0) -> Counted:
    products = collections.Counter({"float32 highest": flops})
    return Counted(products, traffic, collections.Counter({("all-reduce", False): reduced}))


def test_products_that_have_to_be_exact_take_six_passes_on_a_tpu():
    assert time_of(counted(flops=197e12), V5E, 1, 1, ALL).step == pytest.approx(6)
    half = Assumptions(0.5, 1.0)
    assert time_of(counted(flops=197e12), V5E, 1, 1, half).step == pytest.approx(12)


def test_a_step_is_the_longer_of_compute_and_memory_and_then_the_collectives():
    found = time_of(counted(197e12, int(819e9 * 7), int(100e9)), V5E, 2, 1, ALL)
    assert found.memory == pytest.approx(7)
    assert found.communication == pytest.approx(2 * 100 / 2 / 200)
    assert found.step == pytest.approx(7.5)


def test_beyond_a_slice_an_all_reduce_also_goes_over_the_network():
    inside = collective_seconds("all-reduce", 1e9, 256, V5E, ALL)
    assert inside == pytest.approx(2 * 255 / 256 / 200)
    across = collective_seconds("all-reduce", 1e9, 1024, V5E, ALL)
    assert across - inside == pytest.approx(2 / 256 * 3 / 4 / 3.125)


def test_efficiency_begins_at_one_and_falls():
    found = list(efficiencies(counted(1e12, 0, 10**9), V5E, 1, ALL).values())
    assert found[0] == 1
    assert found == sorted(found, reverse=True)
    assert 0 < found[-1] < 1

"""Experts and routers by name, and errors that name the nearest one."""

import pytest

from jaxmoe.models import EXPERTS, ROUTERS, ResNet, build_expert, build_router


def test_an_expert_gets_its_fields():
    expert = build_expert("resnet", num_classes=6, width=8)
    assert isinstance(expert, ResNet)
    assert (expert.num_classes, expert.width) == (6, 8)


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_builds(name):
    fields = {"num_classes": 5} if name == "classwise_gate" else {}
    assert build_router(name, num_experts=3, **fields).num_experts == 3


def test_every_expert_builds():
    for name in EXPERTS:
        assert build_expert(name, num_classes=3).num_classes == 3


@pytest.mark.parametrize(
    ("build", "name", "fields", "message"),
    [
        (build_expert, "resnt", {"num_classes": 6}, "did you mean 'resnet'"),
        (build_expert, "resnet", {"num_clases": 6}, "did you mean 'num_classes'"),
        (build_expert, "resnet", {}, "num_classes"),
        (build_expert, "resnet", {"num_classes": 6, "depth": 7}, "depth must be one of"),
        (build_router, "cnov", {"num_experts": 2}, "did you mean 'conv'"),
        (build_router, "conv", {"expert": 2}, "did you mean 'num_experts'"),
    ],
)
def test_errors_name_the_nearest(build, name, fields, message):
    with pytest.raises(ValueError, match=message) as error:
        build(name, **fields)
    assert "\n" not in str(error.value)

"""Registries: things by name, each with its own fields, and errors that name the nearest one."""

import dataclasses
import inspect
from collections.abc import Iterator
from typing import ClassVar

import jax
import jax.numpy as jnp
import pytest

from jaxmoe.attacks import ATTACKS
from jaxmoe.config import DATASETS, EXPERTS, RECIPES, ROUTERS, ExpertConfig, option
from jaxmoe.models import ResNet
from jaxmoe.overrides import field_types
from jaxmoe.registry import Registry, switch
from tests.registries import restored

REGISTRIES = {"data": DATASETS, "expert": EXPERTS, "router": ROUTERS, "recipe": RECIPES}


def test_an_expert_gets_its_fields():
    expert = EXPERTS.make("resnet", width=8, dtype="bfloat16").build(6)
    assert isinstance(expert, ResNet)
    assert (expert.num_classes, expert.width, expert.dtype) == (6, 8, jnp.bfloat16)


@pytest.mark.parametrize("name", EXPERTS)
def test_every_expert_does_what_it_says(name):
    config = EXPERTS.make(name)
    for sees, shape in (
        (config.sees_images, (1, 32, 32, 3)),
        (config.sees_clips, (1, 4, 32, 32, 3)),
    ):
        if not sees:
            continue
        expert, x = config.build(5), jax.ShapeDtypeStruct(shape, jnp.float32)
        logits, _ = jax.eval_shape(lambda x, m=expert: m.init_with_output(jax.random.key(0), x), x)
        takes = "with_features" in inspect.signature(type(expert).__call__).parameters
        assert takes == config.has_features
        assert logits.shape == ((*shape[:-1], 5) if config.labels_pixels else (1, 5))


@pytest.mark.parametrize("name", ROUTERS)
def test_every_router_builds(name):
    assert ROUTERS.make(name).build(3, 5, "float32").num_experts == 3


@pytest.mark.parametrize("section", REGISTRIES)
def test_every_entry_says_what_it_and_its_fields_are(section):
    for name, kind in REGISTRIES[section].items():
        assert kind.name == name
        assert kind.__doc__ != kind.__base__.__doc__
        for field in dataclasses.fields(kind):
            assert field.metadata["help"], (name, field.name)
        assert field_types(kind).keys() == {field.name for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("registry", "name", "fields", "message"),
    [
        (EXPERTS, "resnt", {}, "expert.name: 'resnt' is not accepted; did you mean resnet?"),
        (EXPERTS, "resnet", {"widht": 6}, "no such field of resnet; did you mean width?"),
        (
            EXPERTS,
            "resnet",
            {"patch": 6},
            "expert.patch: resnet has no such field; vit, vivit have it",
        ),
        (ROUTERS, "cnov", {}, "did you mean conv?"),
        (DATASETS, "npz", {"manifest": "m"}, "npz has no such field; video_folder, image_folder, "),
    ],
)
def test_errors_name_the_nearest(registry, name, fields, message):
    with pytest.raises(ValueError, match=r"^.*$") as error:
        registry.make(name, **fields)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("spelt", "name"),
    [("J-TLAT", "j_tlat"), ("PGD-AT", "at_m"), ("pgd_at", "at_m"), ("RT-ER", "rt_er")],
)
def test_the_papers_names_find_a_recipe(spelt, name):
    assert RECIPES.make(spelt).name == name


def test_an_attack_its_key_and_its_function_are_one_word():
    for name, attack in ATTACKS.items():
        assert attack.build.__name__ == name.replace("-", "_")


def test_a_switch_keeps_what_both_have():
    clips = DATASETS.make("synthetic_actions", frames=4, height=20, domains=2)
    assert switch(clips, "video_folder", "data") == DATASETS.make(
        "video_folder", frames=4, height=20
    )
    assert switch(clips, "synthetic_actions", "data") is clips


@pytest.fixture
def registry() -> Iterator[Registry]:
    with restored():
        yield EXPERTS


def test_an_entry_of_ones_own_is_added_once(registry):
    @dataclasses.dataclass(frozen=True)
    class Own(ExpertConfig):
        """Own."""

        name: ClassVar[str] = "own"
        hidden: int = option(3, "units")

    assert registry.add(Own) is Own
    assert registry.make("own", hidden=4) == Own(hidden=4)
    registry.add(Own)
    with pytest.raises(ValueError, match=r"resnet: EXPERTS has an entry of that name"):
        registry.add(
            dataclasses.make_dataclass(
                "Other", [], bases=(ExpertConfig,), frozen=True, namespace={"name": "resnet"}
            )
        )
    with pytest.raises(ValueError, match=r"Own: it is no router of ROUTERS"):
        ROUTERS.add(Own)
    with pytest.raises(ValueError, match=r"Nameless: it has no name"):
        registry.add(dataclasses.make_dataclass("Nameless", [], bases=(ExpertConfig,), frozen=True))

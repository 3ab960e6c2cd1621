import dataclasses
import pathlib

import numpy as np
import pytest

from jaxmoe.config import (
    DeepLabConfig,
    Experiment,
    ResNetConfig,
    TRADESConfig,
    VideoFolderConfig,
    ViTConfig,
)
from jaxmoe.overrides import apply_overrides, check_types, list_fields, parse_number


def override(text: str) -> Experiment:
    return apply_overrides(Experiment(), text.split())


@pytest.mark.parametrize(
    ("text", "section", "field", "expected"),
    [
        ("--optimizer.learning-rate 3e-4", "optimizer", "learning_rate", 3e-4),
        ("--optimizer.learning_rate=3e-4", "optimizer", "learning_rate", 3e-4),
        ("--threat.epsilon 8/255", "threat", "epsilon", 8 / 255),
        ("--mixture.top-k 2", "mixture", "top_k", 2),
        ("--expert.depth 18", "expert", "depth", 18),
        ("--expert.stage-sizes 1 2", "expert", "stage_sizes", (1, 2)),
        ("--expert.stem-strides 2 2 2", "expert", "stem_strides", (2, 2, 2)),
        ("--evaluation.attacks pgd j-tlga", "evaluation", "attacks", ("pgd", "j-tlga")),
        ("--evaluation.epsilons 0 4/255", "evaluation", "epsilons", (0.0, 4 / 255)),
        ("--evaluation.epsilons=0,4/255", "evaluation", "epsilons", (0.0, 4 / 255)),
        ("--evaluation.attacks pgd,j-tlga", "evaluation", "attacks", ("pgd", "j-tlga")),
        ("--expert.stage-sizes 1, 2", "expert", "stage_sizes", (1, 2)),
        ("--data.subset a,b", "data", "subset", "a,b"),
        ("--data.stride 2", "data", "stride", 2),
        ("--data.stride none", "data", "stride", None),
        ("--data.subset a=b/c", "data", "subset", "a=b/c"),
        ("--data.flip", "data", "flip", True),
        ("--data.flip false", "data", "flip", False),
        ("--attack.alpha 1", "attack", "alpha", 1.0),
        ("--attack.steps 3 --attack.steps 7", "attack", "steps", 7),
    ],
)
def test_value_gets_the_type_of_its_field(text, section, field, expected):
    value = getattr(getattr(override(text), section), field)
    assert value == expected
    assert type(value) is type(expected)


def test_all_else_stays_as_it_was():
    changed = override("--training.epochs 3 --mixture.experts 2")
    restored = dataclasses.replace(
        changed,
        training=dataclasses.replace(changed.training, epochs=Experiment().training.epochs),
        mixture=dataclasses.replace(changed.mixture, experts=Experiment().mixture.experts),
    )
    assert restored == Experiment()


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("--optimizer.lerning-rate 1", ["optimizer.lerning-rate", "--optimizer.learning-rate"]),
        ("--treat.epsilon 1", ["treat.epsilon", "--threat.epsilon"]),
        ("--learning-rate 1", ["learning-rate", "--optimizer.learning-rate"]),
        ("--mixture.top-k two", ["mixture.top_k", "two", "an integer"]),
        ("--mixture.top-k 1.5", ["mixture.top_k", "1.5", "an integer"]),
        ("--mixture.top-k 1 2", ["mixture.top_k", "1 2", "an integer"]),
        ("--mixture.top-k", ["mixture.top_k", "no value", "an integer"]),
        (
            "--recipe jtdmoe --recipe.upper-moves all",
            ["recipe.upper_moves", "all", "both, standard"],
        ),
        ("--expert.stem-strides 1 2", ["expert.stem_strides", "1 2", "3 of"]),
        ("--evaluation.attacks", ["evaluation.attacks", "no value", "one or more"]),
        ("--data.flip maybe", ["data.flip", "maybe", "true or false"]),
        ("--threat.epsilon 8/0", ["threat.epsilon", "8/0", "a number"]),
        ("--attack.alpha -1", ["attack.alpha", "-1"]),
        ("stray", ["stray"]),
        ("--expert.patch 4", ["--expert.patch", "resnet has no such field", "vit, vivit have it"]),
        ("--expert vitt", ["expert", "vitt", "did you mean vit?", "All are resnet, "]),
        ("--expert", ["expert", "no value", "a name"]),
        ("--training.recipe at_m", ["--training.recipe", "--recipe now"]),
        ("--training.beta 2", ["--training.beta", "--recipe.beta now"]),
        ("--recipes at_m", ["recipes", "--recipe"]),
    ],
)
def test_error_names_field_value_and_what_is_accepted(text, said):
    with pytest.raises(ValueError, match=r"^.*$") as caught:
        override(text)
    for part in said:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_field_can_be_overridden_with_its_own_value():
    for section in dataclasses.fields(Experiment):
        for field in list_fields(Experiment(), section.name):
            values = field.value if isinstance(field.value, tuple) else (field.value,)
            arguments = [f"--{field.name}", *(str(value) for value in values)]
            assert apply_overrides(Experiment(), arguments) == Experiment(), field.name


def test_another_entry_has_its_own_fields_and_keeps_those_that_both_have():
    found = override("--expert.width 8 --expert vit --expert.patch 2 --recipe.name trades")
    assert found.expert == ViTConfig(width=8, patch=2)
    assert found.recipe == TRADESConfig()
    assert override("--data video_folder --data.frames 4").data == VideoFolderConfig(frames=4)
    scaled = apply_overrides(Experiment(expert=ResNetConfig(depth=18)), ["--expert", "deeplab"])
    assert scaled.expert == DeepLabConfig(depth=18)


def test_numbers_are_decimals_or_fractions():
    assert parse_number("8/255") == 8 / 255
    assert parse_number("1e-3") == 1e-3
    for text in ("", "8/", "1/0", "a"):
        with pytest.raises(ValueError, match="is no number"):
            parse_number(text)


@pytest.mark.parametrize("section", [f.name for f in dataclasses.fields(Experiment)])
def test_help_has_a_word_on_every_field(section):
    assert [f.name for f in list_fields(Experiment(), section) if not f.help] == []


def test_a_path_that_is_there_is_one_value_whatever_is_in_its_name(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a, b").mkdir()
    arguments = ["--training.initialize-experts-from", "a, b", "c,d"]
    found = apply_overrides(Experiment(), arguments).training.initialize_experts_from
    assert found == ("a, b", "c", "d")


@pytest.mark.parametrize(
    ("section", "field", "value", "accepted"),
    [
        ("data", "frames", "8", "an integer"),
        ("data", "frames", 8.0, "an integer"),
        ("data", "frames", True, "an integer"),
        ("data", "frames", None, "an integer"),
        ("data", "flip", 1, "true or false"),
        ("data", "subset", pathlib.Path("x"), "text or none"),
        ("expert", "stage_sizes", [1, 2], "one or more of: an integer or none, in a tuple"),
        ("expert", "stage_sizes", (1, "2"), "one or more of: an integer"),
        ("expert", "stem_strides", (1, 2), "3 of: an integer"),
        ("evaluation", "attacks", "pgd", "one or more of: text or none"),
        ("evaluation", "epsilons", 0.1, "one or more of: a number"),
        ("threat", "epsilon", "8/255", "a number"),
        ("optimizer", "learning_rate", np.float32(1e-3), "a number"),
        ("attack", "alpha", "0.1", "a number"),
    ],
)
def test_a_value_in_a_file_is_of_its_fields_type(section, field, value, accepted):
    """JSON and the compiler take no other, and say so late and in other words."""
    experiment = Experiment()
    part = getattr(experiment, section)
    if section == "attack":
        part = dataclasses.replace(part)
        object.__setattr__(part, field, value)
    else:
        part = dataclasses.replace(part, **{field: value})
    with pytest.raises(ValueError, match="is not accepted") as caught:
        check_types(dataclasses.replace(experiment, **{section: part}))
    line = str(caught.value)
    assert line.startswith(f"{section}.{field}: {value!r} is not accepted; expected {accepted}")


def test_a_section_is_of_its_own_type_and_integers_are_numbers():
    with pytest.raises(ValueError, match=r"^threat: 'linf' is not accepted; expected ThreatConfig"):
        check_types(dataclasses.replace(Experiment(), threat="linf"))
    experiment = Experiment()
    threat = dataclasses.replace(experiment.threat, epsilon=1)
    check_types(dataclasses.replace(experiment, threat=threat))
    check_types(experiment)

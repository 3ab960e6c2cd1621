"""Configuration: impossible values are found, files round-trip, shipped configs are possible."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import pytest

from jaxmoe.commands.arguments import load_config, load_from
from jaxmoe.commands.study import _check_judging
from jaxmoe.config import (
    DATASETS,
    AdvMoEConfig,
    ATDConfig,
    ATMConfig,
    ATSConfig,
    DeepLabConfig,
    EvaluationConfig,
    Experiment,
    ExpertConfig,
    JTLATConfig,
    OUDMConfig,
    R2Plus1DConfig,
    ResNetConfig,
    RouterConfig,
    RunConfig,
    SlowFastConfig,
    Study,
    SyntheticActionsConfig,
    SyntheticScenesConfig,
    SyntheticShapesConfig,
    TrainingConfig,
    TSMConfig,
    VideoFolderConfig,
    ViTConfig,
    ViViTConfig,
    from_dict,
    to_dict,
    validate,
)
from jaxmoe.runs.build import evaluation_attacks
from jaxmoe.runs.study.cells import cells, experiment_of

DATA = pathlib.Path(__file__).parent / "recorded"
_ALL = sorted((pathlib.Path(__file__).parent.parent / "configs").rglob("*.py"))
STUDIES = [path for path in _ALL if path.parent.name == "studies"]
CONFIGS = [path for path in _ALL if path not in STUDIES]


def changed(section: str, **fields) -> Experiment:
    experiment = Experiment()
    replaced = dataclasses.replace(getattr(experiment, section), **fields)
    return dataclasses.replace(experiment, **{section: replaced})


@pytest.mark.parametrize(
    ("section", "fields", "message"),
    [
        ("threat", {"epsilon": -0.1}, r"threat\.epsilon: -0\.1 .* ≥ 0"),
        ("threat", {"norm": "l1"}, r"threat\.norm: 'l1' .* expected one of linf, l2"),
        ("mixture", {"top_k": 5}, r"mixture\.top_k: 5 .* at most mixture\.experts = 4"),
        ("expert", {"depth": 11}, r"expert\.depth: 11 .* one of 10, 18, 34"),
        ("mixture", {"experts": 0}, r"mixture\.experts: 0 .* at least 1"),
        ("mixture", {"balance_weight": -1.0}, r"mixture\.balance_weight: -1\.0 .* ≥ 0"),
        ("training", {"epochs": 0}, r"training\.epochs: 0 .* at least 1"),
        ("training", {"epsilon_warmup": 1.0}, r"training\.epsilon_warmup: 1\.0 .* below 1"),
        ("optimizer", {"learning_rate": 0.0}, r"optimizer\.learning_rate: 0\.0 .* above 0"),
        ("evaluation", {"epsilons": (0.1, -0.1)}, r"evaluation\.epsilons: -0\.1"),
        ("evaluation", {"attacks": ("pdg",)}, r"'pdg' is no attack; did you mean pgd"),
        ("run", {"validate_every": 0}, r"run\.validate_every: 0 .* at least 1, or .* latest"),
        ("mixture", {"dropped_experts": 4}, r"mixture\.dropped_experts: 4 .* at most 3"),
    ],
)
def test_an_impossible_value_is_one_line_with_field_and_value(section, fields, message):
    with pytest.raises(ValueError, match=message) as caught:
        validate(changed(section, **fields))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"recipe": JTLATConfig(weak_experts=9)}, r"recipe\.weak_experts: 9 .* at most"),
        ({"data": VideoFolderConfig()}, r"data\.directory: None .* the folder"),
        (
            {"data": SyntheticShapesConfig(), "recipe": JTLATConfig()},
            "recipe.name: j_tlat .* frames",
        ),
        ({"recipe": ATSConfig()}, r"mixture\.experts: 4 .* at most 1 with recipe at_s"),
        ({"recipe": ATDConfig()}, r"mixture\.top_k: 1 .* all 4 with recipe at_d"),
        ({"recipe": OUDMConfig()}, r"expert\.restoration: False .* true with recipe oud_m"),
        (
            {"expert": ViTConfig(), "data": SyntheticShapesConfig(), "recipe": OUDMConfig()},
            r"expert\.restoration: None .* true with recipe oud_m",
        ),
        (
            {"recipe": ATMConfig(inner_attack="pdg")},
            r"recipe\.inner_attack: .*'pdg'.* did you mean pgd",
        ),
        (
            {"recipe": ATMConfig(inner_attack="square")},
            r"recipe\.inner_attack: square .* gradients",
        ),
        (
            {"recipe": AdvMoEConfig(inner_attack="square")},
            r"recipe\.inner_attack: square .* gradients",
        ),
        (
            {"data": SyntheticShapesConfig(), "recipe": ATMConfig(inner_attack="tla-m")},
            r"recipe\.inner_attack: tla-m .* attacks frames",
        ),
        ({"training": TrainingConfig(label_smoothing=1.0)}, r"label_smoothing: 1\.0 .* below 1"),
        (
            {"evaluation": EvaluationConfig(checkpoint="average")},
            r"evaluation\.checkpoint: average .* no average is kept",
        ),
        (
            {
                "training": TrainingConfig(patience=2),
                "run": RunConfig(validate_every=0),
                "evaluation": EvaluationConfig(checkpoint="latest"),
            },
            r"training\.patience: 2 .* nothing is validated",
        ),
        ({"expert": ViTConfig()}, r"expert\.name: vit .* resnet .* which has clips"),
        (
            {"expert": ResNetConfig(mean=(0.5, 0.5))},
            r"expert\.mean: \(0\.5, 0\.5\) .* one for each of 3 channels",
        ),
        ({"expert": ResNetConfig(std=(0.0,))}, r"expert\.std: \(0\.0,\) .* numbers above 0"),
        (
            {"expert": TSMConfig(), "data": SyntheticActionsConfig(frames=1)},
            r"expert\.name: tsm .* another with data\.frames = 1: it shifts channels in time",
        ),
        (
            {"expert": SlowFastConfig(frame_ratio=8), "data": SyntheticActionsConfig(frames=5)},
            r"expert\.frame_ratio: 8 .* at most data\.frames = 5",
        ),
        (
            {"expert": SlowFastConfig(width=6)},
            r"channel_ratio: 4 .* a divisor of expert\.width = 6",
        ),
        (
            {"expert": ViViTConfig(), "data": SyntheticActionsConfig(frames=5)},
            r"expert\.tubelet: 2 .* a divisor of data\.frames = 5",
        ),
        (
            {"expert": R2Plus1DConfig(), "data": SyntheticShapesConfig()},
            r"expert\.name: r2plus1d .* resnet or vit with data\.name = .*, which has images",
        ),
        ({"expert": DeepLabConfig()}, r"expert\.name: deeplab .* resnet or .* with data"),
        (
            {"data": SyntheticScenesConfig()},
            r"expert\.name: resnet .* deeplab or deeplab_v3 or frrn with data",
        ),
        (
            {"data": SyntheticShapesConfig(), "expert": ViTConfig(patch=5)},
            r"expert\.patch: 5 .* a divisor of data\.height = 32",
        ),
    ],
)
def test_sections_that_do_not_fit_together_are_one_line(sections, message):
    with pytest.raises(ValueError, match=message) as caught:
        validate(Experiment(**sections))
    assert "\n" not in str(caught.value)


def test_a_negative_attack_number_is_refused_where_it_is_written():
    with pytest.raises(ValueError, match=r"attack\.lam: -1 is not a finite number ≥ 0"):
        changed("attack", lam=-1)


def test_an_experiment_survives_json():
    experiment = changed("expert", stage_sizes=(1, 2))
    assert from_dict(to_dict(experiment)) == experiment


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"threat": {"epsilom": 1}}, r"threat\.epsilom: no such field; did you mean epsilon\?"),
        ({"treat": {}}, r"treat: no such section; did you mean threat\?"),
        ({"expert": {"patch": 8}, "recipe": {}}, r"expert\.patch: resnet has no such field; vit"),
        ({"data": {"frames": "8"}}, r"data\.frames: '8' is not accepted; expected an integer"),
    ],
)
def test_an_unknown_name_in_a_file_is_refused(values, message):
    with pytest.raises(ValueError, match=message):
        from_dict(values)


def test_configurations_of_before_are_read():
    """Of every shipped config, as a run's `config.json` had it before recipes had own sections."""
    recorded = json.loads((DATA / "configs_before_registries.json").read_text("utf-8"))
    assert len(recorded) == 20
    for path, values in recorded.items():
        now = load_config(str(CONFIGS[0].parents[2] / path))
        then = dataclasses.replace(now.attack, iterate="best")  # what training kept before
        assert from_dict(values) == dataclasses.replace(now, attack=then), path
        assert from_dict(to_dict(now)) == now, path


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: ExpertConfig(name="vit"), r"ExpertConfig\(name='vit', …\) is now ViTConfig"),
        (lambda: RouterConfig("pooled"), r"RouterConfig\(name='pooled', …\) is now PooledRouter"),
        (lambda: ExpertConfig(width=3), r"expected EXPERTS\.make\(NAME, …\) .* resnet"),
    ],
)
def test_a_kind_is_not_made_itself(make, message):
    with pytest.raises(TypeError, match=message):
        make()


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_shipped_config_is_possible(path):
    experiment = load_config(str(path))
    if experiment.data.needs_directory:
        data = dataclasses.replace(experiment.data, directory="somewhere")
        experiment = dataclasses.replace(experiment, data=data)
    assert validate(experiment) is experiment


def test_importing_jaxmoe_imports_no_room_and_never_tensorflow():
    script = (
        "import sys, jaxmoe; light = set(sys.modules);"
        "import jaxmoe.cli, jaxmoe.runs.run, jaxmoe.evaluation, jaxmoe.reporting;"
        "import tensorflow_datasets;"
        "print('jax' in light, 'grain' in light, 'tensorflow' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.split() == ["False", "False", "False"], done.stderr


@pytest.mark.parametrize(
    ("name", "attacks"),
    [("synthetic_actions", ("pgd", "tlga-r", "j-tlga")), ("cifar10", ("pgd", "pgd-r", "pgd-e"))],
)
def test_attacks_that_nobody_names_fit_the_data(name, attacks):
    experiment = Experiment(data=DATASETS.make(name))
    assert evaluation_attacks(validate(experiment)) == attacks
    named = dataclasses.replace(
        experiment, evaluation=dataclasses.replace(experiment.evaluation, attacks=("fgsm",))
    )
    assert evaluation_attacks(named) == ("fgsm",)


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_every_shipped_study_is_possible(path, tmp_path):
    study = load_from(str(path), "study", Study)
    found = cells(study)
    assert len(found) == len(study.arms) * len(study.folds) * len(study.architectures)
    given = ["--data.directory", str(tmp_path), "--run.directory", "the same"]
    experiments = [experiment_of(study, cell, tmp_path, given) for cell in found]
    first = [
        each for cell, each in zip(found, experiments, strict=True) if cell.block == found[0].block
    ]
    assert len(set(map(repr, first))) == len(study.arms), "two arms are the same"
    _check_judging(study, experiments, tmp_path)

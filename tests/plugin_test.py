"""A thing of one's own is one file: a plugin, or a file of the package and one line more."""

import json
import shutil
import sys
import types

import jax
import numpy as np
import pytest

from jaxmoe.attacks import ATTACKS, find_attack
from jaxmoe.commands.arguments import load_config
from jaxmoe.config import DATASETS, EXPERTS, RECIPES, from_dict, to_dict, validate
from jaxmoe.data import load_dataset
from jaxmoe.evaluation import MEASURES, Measure, NonFiniteError
from jaxmoe.evaluation.engine.journal import model_digest
from jaxmoe.evaluation.engine.programs import Programs
from jaxmoe.evaluation.engine.scoring import Outputs
from jaxmoe.evaluation.engine.summary import mean_measures
from jaxmoe.evaluation.measures.measures import find_measures, measure
from jaxmoe.plugins import load_plugins, load_recorded
from jaxmoe.runs.build import build_mixture, evaluation_attacks
from jaxmoe.runs.run import init_params, recipe_options
from jaxmoe.threat import ThreatModel
from tests.commands.tiny import run
from tests.readme_test import ROOT, plugin_of
from tests.registries import restored

PLUGIN = plugin_of(ROOT / "jaxmoe" / "config" / "README.md")
CONFIG = """
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def config():
    return Experiment(
        data=DATASETS.make("corners", height=8, images=12),
        expert=EXPERTS.make("perceptron", hidden=4),
        router=LinearRouterConfig(),
        mixture=MixtureConfig(experts=2),
        attack=AttackSettings(steps=2),
        recipe=RECIPES.make("experts_only", clean_weight=0.1),
        training=TrainingConfig(epochs=1, batch_size=12),
        evaluation=EvaluationConfig(
            attacks=("unsure",), measures=("gap",), steps=2, batch_size=12, checkpoint="latest"
        ),
        run=RunConfig(directory="run", validate_every=0),
    )
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(PLUGIN)
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    with restored(), jax.numpy_dtype_promotion("standard"):
        yield tmp_path


def forget():
    """Registries as a new process has them."""
    for registry, name in ((DATASETS, "corners"), (EXPERTS, "perceptron")):
        del registry._entries[name]
    del RECIPES._entries["experts_only"], ATTACKS["unsure"], MEASURES["gap"]
    sys.modules["jaxmoe.plugins"]._loaded.clear()


def test_all_five_work_from_a_file_and_on_the_command_line(folder, capsys):
    assert run("train config.py --plugin mine.py --expert.hidden 5") == 0
    recorded = json.loads((folder / "run" / "config.json").read_text("utf-8"))
    assert recorded["run"]["plugins"] == [str(folder / "mine.py")]
    assert recorded["expert"] == {"name": "perceptron", "dtype": "float32", "hidden": 5}
    assert recorded["recipe"] == {"name": "experts_only", "clean_weight": 0.1}
    capsys.readouterr()
    forget()  # the run remembers its plugin
    assert run("evaluate run --measures gap confidence --no-checks") == 0
    table = capsys.readouterr().out
    rows = json.loads((folder / "run" / "results.json").read_text("utf-8"))
    assert [row["attack"] for row in rows] == ["clean", "unsure", "worst-case"]
    for row in rows[:2]:
        assert row["measures"].keys() == {"gap", "confidence"}
        assert 0 <= row["measures"]["gap"] <= row["measures"]["confidence"] <= 1
    assert "gap of the top two" in table
    titles = (folder / "run" / "results.csv").read_text("utf-8").splitlines()[0].split(",")
    assert titles[-2:] == ["measure_confidence", "measure_gap"]

    forget()
    (folder / "mine.py").rename(folder / "moved.py")
    assert run("evaluate run") == 2
    error = capsys.readouterr().err
    assert error.splitlines() == [
        f"jaxmoe: run.plugins: {folder / 'mine.py'} is not there, and the run needs it; "
        "--plugin mine.py says where it is now"
    ]
    shutil.move(folder / "moved.py", folder / "cache" / "mine.py")
    assert run("show run --plugin cache/mine.py") == 0
    assert "2 × perceptron" in capsys.readouterr().out


def test_help_and_listings_show_them(folder, capsys):
    arguments = "--data corners --expert perceptron --recipe experts_only"
    assert run(f"train --plugin mine.py {arguments} --help") == 0
    told = capsys.readouterr().out
    for line in ("--data.images 40", "--expert.hidden 16", "--recipe.clean-weight 0.5"):
        assert line in told
    assert "units of the hidden layer" in told
    assert "--expert.depth" not in told
    assert run("attacks --plugin=mine.py --part router") == 0
    assert "unsure" in capsys.readouterr().out
    assert run(f"train config.py --plugin mine.py {arguments} --expert.hiden 3") == 2
    assert "did you mean --expert.hidden?" in capsys.readouterr().err
    assert run("evaluate run --plugin mine.py") == 2
    assert "run: no config.json in run" in capsys.readouterr().err


def test_inside_the_package_it_is_a_file_and_a_line(folder, monkeypatch):
    module = types.ModuleType("jaxmoe.toy")
    module.__file__ = str(folder / "mine.py")
    monkeypatch.setitem(sys.modules, "jaxmoe.toy", module)
    exec(compile(PLUGIN, module.__file__, "exec"), module.__dict__)
    attack, measure = ATTACKS["unsure"], MEASURES["gap"]
    forget()
    for registry, line in (
        (DATASETS, {"corners": "jaxmoe.toy:CornersConfig"}),
        (EXPERTS, {"perceptron": "jaxmoe.toy:PerceptronConfig"}),
        (RECIPES, {"experts_only": "jaxmoe.toy:ExpertsOnlyConfig"}),
    ):
        registry._entries |= line
    ATTACKS["unsure"], MEASURES["gap"] = attack, measure
    experiment = validate(load_config("config.py"))
    assert from_dict(to_dict(experiment)) == experiment
    dataset = load_dataset(experiment.data)
    mixture = build_mixture(experiment, len(dataset.classes))
    assert len(dataset.train) == 12
    params = init_params(experiment, mixture)
    assert mixture.apply(params, np.zeros((2, 8, 8, 3), np.float32)).shape == (2, 4)
    (phase,) = experiment.recipe.phases(mixture, ThreatModel(), recipe_options(experiment))
    assert phase.moves == {"experts"}
    assert find_measures(experiment.evaluation.measures) == ("gap",)
    assert evaluation_attacks(experiment) == ("unsure",)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--plugin none.py", "--plugin: no such file: none.py; expected a python file"),
        ("--plugin config.txt", "--plugin: config.txt is no python file; expected FILE.py"),
        ("--plugin broken.py", "--plugin: broken.py raised ZeroDivisionError: division by zero"),
    ],
)
def test_a_plugin_that_cannot_be_read_is_one_line(folder, capsys, arguments, message):
    (folder / "config.txt").touch()
    (folder / "broken.py").write_text("1 / 0\n")
    assert run(f"attacks {arguments}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


def test_an_attack_on_a_part_that_there_is_not_is_one_line(folder, capsys):
    ATTACKS["mine"] = ATTACKS["pgd"]._replace(component="whole")
    message = "attack: mine has component 'whole'; expected one of model, router, experts, joint"
    with pytest.raises(ValueError, match=message):
        find_attack("mine")
    assert run("attacks") == 2
    assert message in capsys.readouterr().err


def test_a_config_that_needs_a_plugin_says_so(folder, capsys):
    assert run("train config.py") == 2
    assert "of your own? --plugin FILE.py names the file that adds it" in capsys.readouterr().err


def test_a_plugin_is_read_once(folder):
    (folder / "counts.py").write_text(
        "import builtins\nbuiltins.counted = getattr(builtins, 'counted', 0) + 1\n"
    )
    import builtins

    load_plugins(["counts.py"])
    load_plugins([folder / "counts.py"])
    load_recorded([str(folder / "elsewhere" / "counts.py")])
    assert builtins.counted == 1
    (folder / "copy").mkdir()
    shutil.copy("counts.py", "copy/counts.py")
    load_recorded([str(folder / "copy" / "counts.py")])
    assert builtins.counted == 1
    (folder / "copy" / "counts.py").write_text("other = 1\n")
    with pytest.raises(ValueError, match=r"run\.plugins: .*copy/counts.py is another file than"):
        load_recorded([str(folder / "copy" / "counts.py")])
    del builtins.counted


def test_what_no_later_command_finds_is_not_trained(folder, capsys):
    added = PLUGIN.replace('"""mine.py"""', "") + CONFIG
    (folder / "config.py").write_text(added)
    assert run("train config.py") == 2
    assert "where no later command finds it" in capsys.readouterr().err
    assert not (folder / "run").exists()
    assert run("train config.py --run.plugins mine.py") == 2
    assert "expected --plugin FILE.py" in capsys.readouterr().err


def test_a_run_whose_plugin_is_not_known_says_so(folder, capsys):
    load_plugins(["mine.py"])
    experiment = validate(load_config("config.py"))
    (folder / "run").mkdir()
    (folder / "run" / "config.json").write_text(json.dumps(to_dict(experiment)))
    forget()
    assert run("evaluate run") == 2
    error = capsys.readouterr().err
    assert "its config.json names data 'corners', which is not known here; --plugin" in error


def test_results_of_other_plugins_or_measures_are_not_taken(folder):
    def model(params, x):
        return x.mean((1, 2)) * params

    plain, measured = Programs(model), Programs(model, measures=("confidence",))
    before = model_digest(plain, 2.0)
    assert model_digest(Programs(model), 2.0) == before
    assert model_digest(measured, 2.0) != before
    load_plugins(["mine.py"])
    assert model_digest(plain, 2.0) != before
    with pytest.raises(ValueError, match=r"measures: none; programs compute confidence"):
        measured.check_measures(())


def test_an_error_of_a_plugin_is_one_line_too(folder, capsys):
    check = "    def check(self):\n        raise ValueError('data.images: odd')\n\n"
    refuses = PLUGIN.replace("    def builder(self", check + "    def builder(self")
    (folder / "refuses.py").write_text(refuses)
    assert run("data --plugin refuses.py --name corners") == 2
    assert capsys.readouterr().err == "jaxmoe: data.images: odd\n"


def test_measures_are_means_over_examples():

    logits = np.log(np.array([[0.7, 0.2, 0.1], [0.5, 0.3, 0.2]], np.float32))
    adverse = np.log(np.array([[0.2, 0.5, 0.3], [0.6, 0.3, 0.1]], np.float32))
    clean, attacked = (Outputs(z, *[None] * 6) for z in (logits, adverse))
    found = measure(
        ("confidence", "label-probability", "changed"), attacked, clean, np.array([0, 2])
    )
    np.testing.assert_allclose(found["confidence"], [0.5, 0.6], rtol=1e-6)
    np.testing.assert_allclose(found["label-probability"], [0.2, 0.1], rtol=1e-6)
    np.testing.assert_array_equal(found["changed"], [1, 0])
    # One position without a label, one with.
    dense = Outputs(np.stack([adverse])[:, :, None], *[None] * 6)
    labels = np.array([[[-1], [1]]])
    found = measure(("label-probability",), dense, dense, labels)
    np.testing.assert_allclose(found["label-probability"], [0.3], rtol=1e-6)


def test_trust_is_the_largest_weight_of_a_router():
    z, router = np.zeros((2, 3), np.float32), np.log(np.array([[1, 3], [1, 1]], np.float32))
    routed, plain = (Outputs(z, None, None, r, None, None, None) for r in (router, None))
    found = [measure(("trust",), each, each, np.array([0, 2]))["trust"] for each in (routed, plain)]
    np.testing.assert_allclose(found, [[0.75, 0.5], [1.0, 1.0]], rtol=1e-6)


def test_a_measure_that_is_none_is_refused(folder):
    assert find_measures(["Label_Probability", "changed"]) == ("label-probability", "changed")
    with pytest.raises(ValueError, match=r"'confidense' is not accepted; did you mean confidence"):
        find_measures(["confidense"])
    MEASURES["one"] = Measure("one", "one number for all", lambda outputs, *_: outputs.logits.sum())
    outputs = Outputs(np.zeros((2, 3), np.float32), *[None] * 6)
    with pytest.raises(ValueError, match=r"one gives shape \(\); expected a number for each of 2"):
        measure(("one",), outputs, outputs, np.array([0, 1]))
    with pytest.raises(NonFiniteError, match=r"measures: gap is not finite on 1 of 2 examples"):
        mean_measures([{"gap": np.array([1.0, np.nan, np.nan])}], [np.array([True, True, False])])

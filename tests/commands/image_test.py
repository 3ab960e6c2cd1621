"""Images from the command line: a standard run, and a dual model that starts from it."""

import dataclasses
import json

import jax
import numpy as np
import optax
import pytest

from jaxmoe.config import ResNetConfig, SyntheticShapesConfig
from jaxmoe.runs import run as runs
from jaxmoe.runs.build import evaluation_loader
from tests.commands.tiny import TINY, refused, run

IMAGES = dataclasses.replace(
    TINY,
    data=SyntheticShapesConfig(
        height=8,
        padding=1,
        train_clips=20,
        validation_clips=10,
        test_clips=10,
    ),
    expert=ResNetConfig(width=4, stage_sizes=(1,), stem_strides=(1, 2, 2)),
    run=dataclasses.replace(TINY.run, validate_every=0),
)
CONFIG = f"""
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def config():
    return {IMAGES!r}
"""

pytestmark = pytest.mark.usefixtures("standard_promotion")


DUAL = "--recipe jtdmoe --recipe.upper-moves standard --mixture.dual-weight 0.75"


@pytest.fixture(scope="module")
def folder(standard_promotion, tmp_path_factory):
    """A folder with a trained standard run of images, and a dual model that starts from it."""
    del standard_promotion
    folder = tmp_path_factory.mktemp("images")
    (folder / "c.py").write_text(CONFIG)
    assert run(f"train {folder}/c.py --run.directory {folder}/standard") == 0
    start = f"--training.initialize-from {folder}/standard"
    start += f" --training.initialize-standard-from {folder}/standard"
    assert run(f"train {folder}/c.py --run.directory {folder}/dual {DUAL} {start}") == 0
    return folder


def test_a_dual_model_starts_from_two_runs_and_is_evaluated(folder, capsys):
    assert run(f"evaluate {folder}/dual --attacks pgd-e --no-checks --dual-weight 0.6") == 0
    rows = json.loads((folder / "dual" / "results.json").read_text())
    assert [row["attack"] for row in rows] == ["clean", "pgd-e", "worst-case"]
    assert rows[1]["n"] == 10
    trained, source = runs.load(folder / "dual"), runs.load(folder / "standard")
    assert float(trained.params["alpha"]) == 0.75
    assert source.dataset.train[0]["frames"].height == 8
    for part in ("router", "experts"):
        ended = jax.tree.leaves(source.params[part])
        for params in (trained.params["standard"], trained.params):
            for a, b in zip(ended, jax.tree.leaves(params[part]), strict=True):
                assert np.all(np.abs(a - b) < 0.1)  # a few steps on
    # A dual model is more than a router and experts: there is no sparse and dense count of it.
    said = "".join(capsys.readouterr())
    assert "GFLOPs were not counted" not in said
    assert "GFLOPs per example" not in said
    assert "isolated %" in (folder / "dual" / "results.md").read_text()
    assert json.loads((folder / "dual" / "evaluation.json").read_text())["dual_weight"] == 0.6


def test_a_weight_that_no_dual_model_has_is_refused(folder, capsys):
    for options, message in (
        ("dual --dual-weight 1.5", "--dual-weight: 1.5 is not accepted; expected from 0 to 1"),
        ("standard --dual-weight 0.5", "--dual-weight: RUN is no dual model"),
        ("standard@mean --dual-weight 0.5", "--dual-weight: RUN is no dual model"),
        ("dual@mean --dual-weight 0.5", "--dual-weight: mean is a part of a dual model"),
    ):
        assert run(f"evaluate {folder}/{options}") == 2
        assert message in capsys.readouterr().err


@pytest.mark.nightly
def test_a_dual_model_of_weight_one_or_zero_is_one_of_its_two(folder):
    assert run(f"evaluate {folder}/dual --attacks fgsm --output {folder}/own --no-checks") == 0
    own = json.loads((folder / "own" / "evaluation.json").read_text())
    assert own["dual_weight"] == 0.75, "as it was trained"
    at_one, at_zero = folder / "one", folder / "zero"
    for alpha, output in ((1, at_one), (0, at_zero)):
        options = f"--attacks fgsm --dual-weight {alpha} --output {output} --no-checks"
        assert run(f"evaluate {folder}/dual {options}") == 0
    dual = runs.load(folder / "dual")
    batch = next(iter(evaluation_loader(dual.dataset.test, dual.experiment.data, 10)))
    x, label = batch["clip"].astype(np.float32) / 255, batch["label"]
    losses = []
    for output, params in ((at_one, dual.params), (at_zero, dual.params["standard"])):
        logits = runs.load(folder / "standard").mixture.apply(params, x)
        clean, fgsm, _ = json.loads((output / "results.json").read_text())
        details = json.loads((output / "evaluation.json").read_text())
        assert details["dual_weight"] == (1 if output == at_one else 0)
        assert f"dual model, α = {details['dual_weight']:g}." in (output / "results.md").read_text()
        assert clean["robust_accuracy"] == np.mean(np.argmax(logits, -1) == label)
        loss = float(np.mean(optax.softmax_cross_entropy_with_integer_labels(logits, label)))
        losses.append(loss)
        assert fgsm["loss_trace"][0] == pytest.approx(loss, rel=1e-5)
    assert losses[0] != pytest.approx(losses[1], rel=1e-3)  # neither passes for the other


@pytest.mark.parametrize("command", ["evaluate", "transfer", "sweep"])
def test_attacks_in_time_are_refused(folder, command, capsys):
    message = (
        "attacks: tlga-r is not accepted; expected attacks such as pgd: it attacks frames, and "
        "data.name = synthetic_shapes has images"
    )
    assert message in refused(f"{command} {folder}/standard --attacks TLGA_R", folder, capsys)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--recipe jtdmoe", "mixture.dual_weight: None is not accepted; expected from 0 to 1"),
        ("--mixture.dual-weight 1.5", "mixture.dual_weight: 1.5 is not accepted"),
        (
            "--mixture.dual-weight 0.7",
            "training.initialize_standard_from: None is not accepted; expected a run",
        ),
        (
            "--recipe jtdmoe --mixture.dual-weight 0.7 --mixture.router-noise 0.1",
            "mixture.router_noise: 0.1 is not accepted; expected 0",
        ),
        (
            "--recipe j_tlat",
            "recipe.name: j_tlat is not accepted; expected standard or at_m or at_s",
        ),
        (
            "--evaluation.attacks pgd TLGA_R",
            "evaluation.attacks: tlga-r is not accepted; expected attacks such as pgd: it attacks",
        ),
        ("--recipe rt_er --mixture.experts 1", "mixture.experts: 1 is not accepted"),
        (
            "--expert.name vit --expert.patch 3",
            "expert.patch: 3 is not accepted; expected a divisor",
        ),
        (
            "--expert.name vit --data.name synthetic_actions",
            "with data.name = synthetic_actions, which has clips",
        ),
        ("--training.initialize-standard-from x", "expected a dual model, mixture.dual_weight"),
    ],
)
def test_what_cannot_be_trained_is_one_line(folder, arguments, message, capsys):
    assert message in refused(f"train {folder}/c.py {arguments}", folder, capsys)

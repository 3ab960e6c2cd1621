"""Segmentation from the command line: two experts on subsets, a gate on them, parts, transfer."""

import dataclasses
import json

import jax
import numpy as np
import pytest

from jaxmoe.config import DeepLabConfig, MixtureConfig, SyntheticScenesConfig
from jaxmoe.evaluation.measures.metrics import mean_iou
from jaxmoe.runs import run as runs
from tests.commands.tiny import TINY, refused, run

SCENES = dataclasses.replace(
    TINY,
    data=SyntheticScenesConfig(
        height=16,
        padding=1,
        train_clips=40,
        validation_clips=10,
        test_clips=10,
    ),
    expert=DeepLabConfig(width=4, stage_sizes=(1,), features=4, low_level=4, rates=(1,)),
    mixture=MixtureConfig(experts=1, balance_weight=0.0),
)
CONFIG = f"""
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def config():
    return {SCENES!r}
"""
GATE = "--recipe gate --router.name simple_gate --mixture.experts 2 --mixture.top-k 2"

pytestmark = pytest.mark.usefixtures("standard_promotion")


@pytest.fixture(scope="module")
def folder(standard_promotion, tmp_path_factory):
    """A folder with an expert of each place, and a gate on both."""
    del standard_promotion
    folder = tmp_path_factory.mktemp("scenes")
    (folder / "c.py").write_text(CONFIG)
    for place in ("round", "straight"):
        subset = f"--data.subset place={place} --run.validate-every 0"
        assert run(f"train {folder}/c.py --run.directory {folder}/{place} {subset}") == 0
    sources = f"--training.initialize-experts-from {folder}/round {folder}/straight"
    options = f"{GATE} --mixture.head conv {sources} --run.directory {folder}/gate"
    assert run(f"train {folder}/c.py {options}") == 0
    return folder


def test_the_gate_moves_and_the_experts_of_the_runs_stay_to_the_bit(folder):
    gate = runs.load(folder / "gate")
    for number, place in enumerate(("round", "straight")):
        expert = runs.load(folder / place)
        assert len(expert.dataset.train) == len(gate.dataset.train) / 2
        assert expert.dataset.test.records == gate.dataset.test.records
        own = jax.tree.map(lambda leaf, number=number: leaf[number], gate.params["experts"])
        for a, b in zip(
            jax.tree.leaves(own), jax.tree.leaves(expert.params["experts"]), strict=True
        ):
            np.testing.assert_array_equal(a, b[0])
    lines = [json.loads(s) for s in (folder / "gate" / "metrics.jsonl").read_text().splitlines()]
    validated = [line for line in lines if "validation/accuracy" in line]
    assert validated  # and on clean images, as it was trained
    assert not any("validation/robust_accuracy" in line for line in validated)
    fresh = runs.init_params(gate.experiment, gate.mixture)
    for part in ("router", "head"):
        pairs = zip(jax.tree.leaves(fresh[part]), jax.tree.leaves(gate.params[part]), strict=True)
        assert any(np.any(a != b) for a, b in pairs)


def test_a_run_and_a_part_of_it_are_evaluated_with_their_mean_iou(folder, capsys):
    assert run(f"evaluate {folder}/gate --attacks pgd-standing --no-checks") == 0
    assert "mIoU %" in capsys.readouterr().out
    assert run(f"evaluate {folder}/gate@mean --attacks fgsm --no-checks") == 0
    rows = json.loads((folder / "gate" / "results.json").read_text())
    part = json.loads((folder / "gate" / "mean" / "results.json").read_text())
    assert [row["attack"] for row in rows] == ["clean", "pgd-standing", "worst-case"]
    assert 0 < rows[0]["mean_iou"] < 1
    assert rows[2]["mean_iou"] <= rows[0]["mean_iou"]
    assert rows[0]["load_clean"] is not None
    assert part[0]["load_clean"] is None
    for records, place in ((rows, "gate"), (part, "gate/mean")):
        with np.load(folder / place / "examples.npz") as kept:
            found = [mean_iou(counts) for counts in kept["confusion"]]
            assert kept["confusion"].dtype == np.int64
        assert found == [row["mean_iou"] for row in records[:2]]
    details = json.loads((folder / "gate" / "mean" / "evaluation.json").read_text())
    assert (details["run"], details["part"]) == ("..", "mean")
    details = json.loads((folder / "gate" / "evaluation.json").read_text())
    assert (details["run"], details["part"]) == (".", None)
    assert "mIoU %" in (folder / "gate" / "results.md").read_text()


@pytest.mark.nightly
def test_transfer_between_a_mixture_and_its_parts(folder, capsys):
    command = f"transfer {folder}/gate {folder}/gate@expert0 --attacks fgsm --epsilons 0.02"
    assert run(f"{command} --output {folder}/transfer") == 0
    rows = json.loads((folder / "transfer" / "transfer.json").read_text())
    names = {"gate", "gate@expert0"}
    assert {row["target"] for row in rows} == names
    assert all(0 <= row["mean_iou"] <= 1 for row in rows)
    # An expert of a mixture is what its own run evaluates to.
    assert run(f"evaluate {folder}/round --attacks fgsm --epsilons 0.02") == 0
    alone = json.loads((folder / "round" / "results.json").read_text())[0]["mean_iou"]
    as_part = next(row["clean_iou"] for row in rows if row["target"] == "gate@expert0")
    assert as_part == pytest.approx(alone, abs=1e-6)
    assert "mIoU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            "--expert.name resnet",
            "expert.name: resnet is not accepted; expected deeplab or deeplab_v3 or frrn",
        ),
        (
            "--data.name synthetic_shapes",
            "expert.name: deeplab is not accepted; expected resnet or vit",
        ),
        (GATE, "training.initialize_experts_from: None is not accepted; expected runs of experts"),
        (
            f"{GATE} --mixture.top-k 1 --training.initialize-experts-from a b",
            "mixture.top_k: 1 is not accepted; expected all 2",
        ),
        (
            f"{GATE} --training.initialize-experts-from a",
            "training.initialize_experts_from: ('a',) is not accepted; expected 2 runs",
        ),
        ("--mixture.head conv", "mixture.head: conv is not accepted; expected none without"),
        ("--recipe gate", "mixture.experts: 1 is not accepted; expected at least 2"),
        ("--data.subset place=rund", "data.subset: no training example has place 'rund'"),
        (
            f"{GATE} --mixture.router-noise 0.5 --training.initialize-experts-from a b",
            "mixture.router_noise: 0.5 is not accepted; expected 0 with a gate",
        ),
        ("--data.width 17", "data.width: 17 is more than the 16 pixels"),
    ],
)
def test_what_cannot_be_trained_is_one_line(folder, arguments, message, capsys):
    assert message in refused(f"train {folder}/c.py {arguments}", folder, capsys)


@pytest.mark.nightly
def test_a_run_of_other_experts_is_refused(folder, capsys):
    start = f"train {folder}/c.py {GATE} --run.directory {folder}/refused"
    sources = f"--training.initialize-experts-from {folder}/round"
    message = refused(f"{start} {sources} {folder}/gate", folder, capsys)
    assert "gate has 2 experts; expected a run of one" in message
    message = refused(f"{start} {sources} {folder}/round --expert.width 6", folder, capsys)
    assert "round has expert.width = 4; expected 6" in message


def test_a_sweep_of_a_part_lies_in_the_runs_folder(folder):
    part = f"{folder}/gate@expert1"
    assert run(f"sweep {part} --attacks fgsm --epsilons 0.01 0.02") == 0
    assert (folder / "gate" / "expert1" / "sweep" / "sweep.json").is_file()
    assert not (folder / "gate@expert1").exists()


def test_certificates_are_of_one_label(folder, capsys):
    assert "labels pixels" in refused(f"certify {folder}/gate --radii 0.1", folder, capsys)


def test_a_part_that_is_none_is_refused(folder, capsys):
    line = refused(f"evaluate {folder}/gate@expert2", folder, capsys)
    assert "'expert2' is no part of a mixture; expected mean, max" in line

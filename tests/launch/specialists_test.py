"""The launcher's table and its ways at equal cost; what it starts has its own tests."""

import dataclasses
import json
import pathlib

import pytest

from jaxmoe.commands.arguments import load_config
from jaxmoe.config import Experiment, to_dict, validate
from jaxmoe.overrides import apply_overrides
from launch.studies.specialists import run as launcher
from tests.launch.fakes import finish


def write(run, accuracy, experts):
    run.mkdir()
    row = {
        "attack": "clean",
        "epsilon": 0.0,
        "robust_accuracy": accuracy,
        "n": 40,
        "expert_accuracy": experts,
        "trust_accuracy": experts and sorted(experts, reverse=True),
        "random_route_accuracy": experts and sum(experts) / 2,
        "load_clean": experts and [0.25, 0.75],
        "expert_agreement": 0.3,
    }
    details = {"perfect_route": {"domain": {"value": 0.9}}} if experts else None
    names = launcher.ATTACKS if experts else launcher.OF_ONE
    rows = [
        {"attack": name, "epsilon": epsilon, "robust_accuracy": accuracy - 5 * epsilon}
        for epsilon in (0.02, 0.04)
        for name in (*names, "worst-case")
    ]
    (run / "results.json").write_text(json.dumps([row, *rows]))
    (run / "evaluation.json").write_text(json.dumps({"specialization": details}))
    finish(run, 90.0)


def test_the_table_has_means_over_seeds_and_the_single_network(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6)):
        write(launcher.folder(tmp_path, "single", seed), accuracy, None)
        write(launcher.folder(tmp_path, "from scratch", seed), accuracy + 0.2, [0.4, 0.2])
    pairs = [("single", "standard"), ("from scratch", "standard")]
    lines = launcher.kinds_table(tmp_path, pairs, [0, 1]).splitlines()
    assert lines[2] == "| single | 2 | 55.0 | – | – | – | – | – | – | – | 1.5 |"
    assert lines[3] == (
        "| from scratch | 2 | 75.0 | 30.0 | 40.0 | 40.0 | 20.0 | 90.0 | 25.0 | 30.0 | 1.5 |"
    )
    assert lines[-1] == "Means over 2 seeds, each on the same 40 test clips."
    one = launcher.kinds_table(tmp_path, pairs, [1]).splitlines()
    assert one[-1] == "One seed, 40 test clips."


def test_the_table_of_attacks_has_intervals_over_seeds(tmp_path):
    for seed, accuracy in enumerate((0.5, 0.6, 0.7)):
        for way, experts in (("single", None), ("copies", [0.4, 0.2])):
            write(launcher.folder(tmp_path, way, seed, "AT-M"), accuracy, experts)
    pairs = [("single", "AT-M"), ("copies", "AT-M")]
    table = launcher.attacks_table(tmp_path, pairs, [0, 1, 2], 0.04)
    lines = [[cell.strip() for cell in line.split("|")[1:-1]] for line in table.splitlines()]
    by_attack = dict(zip(lines[0], lines[2], strict=True))
    assert lines[0][0] == "ε = 10/255, %"
    assert by_attack["PGD-R"] == by_attack["TLGA-R"] == "–"
    # Student's t with two degrees of freedom: 4.303 · 10 / √3.
    assert by_attack["clean"] == "60.0 ± 24.8"
    assert by_attack["PGD"] == by_attack["worst case"] == "40.0 ± 24.8"
    assert dict(zip(lines[0], lines[3], strict=True))["PGD-R"] == "40.0 ± 24.8"


def test_the_table_of_strong_attacks_names_the_checks_that_flag(tmp_path):
    for way, attacks in (("single", launcher.STRONG_OF_ONE), ("copies", launcher.STRONG)):
        output = launcher.folder(tmp_path, way, 0) / launcher.STRONG_FOLDER
        output.mkdir(parents=True)
        rows = [
            {"attack": name, "epsilon": 4 / 255, "robust_accuracy": 0.25, "n": 96}
            for name in (*attacks, "worst-case")
        ]
        rows.insert(0, {"attack": "clean", "epsilon": 0.0, "robust_accuracy": 0.5, "n": 96})
        (output / "results.json").write_text(json.dumps(rows))
        verdicts = {"dead gradients": "flag", "at ε = 1": "pass", "black box": "not run"}
        checks = [{"name": name, "verdict": said} for name, said in verdicts.items()]
        (output / "evaluation.json").write_text(json.dumps({"checks": checks}))
    pairs = [("single", "standard"), ("copies", "standard")]
    lines = launcher.strong_table(tmp_path, pairs, 0).splitlines()
    assert lines[0] == (
        "| ε = 4/255, % | clean | PGD | PGD-R | PGD-E | AutoAttack | worst case | doubtful checks |"
    )
    assert lines[2] == "| single | 50.0 | 25.0 | – | – | 25.0 | 25.0 | dead gradients |"
    assert lines[3] == "| copies | 50.0 | 25.0 | 25.0 | 25.0 | 25.0 | 25.0 | dead gradients |"
    assert lines[-1] == "Seed 0, 96 test clips."


def test_jtdmoe_starts_from_rt_er_and_the_standard_run(tmp_path, monkeypatch):
    asked = []

    def jaxmoe(command, config, *arguments):
        fields = dict(zip(arguments[::2], arguments[1::2], strict=True))
        asked.append(fields)
        finish(pathlib.Path(fields["--run.directory"]), 1.0)

    monkeypatch.setattr(launcher, "_jaxmoe", jaxmoe)
    launcher.train(tmp_path, "clusters", "JTDMoE", 1)
    standard, robust, dual = (
        str(launcher.folder(tmp_path, "clusters", 1, defence))
        for defence in ("standard", "RT-ER", "JTDMoE")
    )
    assert [fields["--run.directory"] for fields in asked] == [standard, robust, dual]
    assert asked[1]["--training.initialize-from"] == standard
    assert asked[2]["--training.initialize-from"] == robust
    assert asked[2]["--training.initialize-standard-from"] == standard


def test_what_is_missing_is_made_and_nothing_twice(tmp_path, monkeypatch):
    asked = []

    def jaxmoe(command, *arguments):
        asked.append(command)
        fields = dict(zip(arguments[1::2], arguments[2::2], strict=False))
        run = pathlib.Path(fields["--run.directory"] if command == "train" else arguments[0])
        if command == "train":
            asked.append(fields.get("--training.initialize-from"))
            run.mkdir()
            finish(run, 1.0)
        else:
            (run / "evaluation.json").write_text("{}")

    monkeypatch.setattr(launcher, "_jaxmoe", jaxmoe)
    run, start = (launcher.folder(tmp_path, "clusters", 3, d) for d in ("AT-M", "standard"))

    def make():
        launcher.train(tmp_path, "clusters", "AT-M", 3)
        launcher.evaluate(run, "clusters")

    make()
    assert asked == ["train", None, "train", str(start), "evaluate"]
    make()
    assert len(asked) == 5
    (run / "evaluation.journal").touch()
    make()
    assert asked[5:] == ["evaluate"], "one that was stopped goes on"


@pytest.mark.parametrize("defence", [name for name in launcher.DEFENCES if name != "standard"])
def test_defences_take_equal_gradients(defence):
    e = experiment("clusters", defence)
    attack = e.attack.steps
    quotient = 2  # runs of a network in a loss with L_Lip, on x' and on x
    of_an_epoch = {
        "at_m": attack + 1,
        "tlat": attack + quotient,
        "j_tlat": 2 * (attack + quotient) + attack + quotient,  # the router costs next to nothing
        "rt_er": 2 * attack + 3,  # attacks F and an expert; runs F, and that expert twice
        # The same with all four experts; then both mixtures on clean clips.
        "jtdmoe": attack + 4 * attack + 1 + 4 * 2 + 2,
    }[e.recipe.name]
    wanted = launcher.ADVERSARIAL_GRADIENTS
    if defence in ("J-TLAT", "AT-M, longer"):
        wanted = launcher.OF_J_TLAT
    assert e.training.epochs * of_an_epoch == pytest.approx(wanted, rel=0.1)


@pytest.mark.parametrize("way", launcher.WAYS)
@pytest.mark.parametrize("defence", launcher.DEFENCES)
def test_every_run_is_possible(way, defence):
    if defence in launcher.NEEDS_ROUTER and launcher._is_one(way):
        return
    e = experiment(way, defence)
    if defence == "JTDMoE":
        e = dataclasses.replace(
            e, training=dataclasses.replace(e.training, initialize_standard_from="somewhere")
        )
    validate(e)


def experiment(way, defence):
    """As the launcher would have it."""
    fields = dict(launcher.WAYS[way])
    if defence != "standard":
        fields |= {**launcher._SAME_FOR_ALL, **launcher.DEFENCES[defence]}
    given = [part for name, value in fields.items() for part in (f"--{name}", value)]
    return apply_overrides(load_config(str(launcher.CONFIG)), given)


@pytest.mark.parametrize("way", launcher.WAYS)
def test_every_way_takes_as_many_epochs_and_names_fields_that_are_there(way):
    fields = launcher.WAYS[way]
    gradients = {"shared-epochs": 1, "specialize-epochs": 1, "epochs": 1, "dense-epochs": 4}
    epochs = [n * int(fields.get(f"training.{stage}", 0)) for stage, n in gradients.items()]
    assert sum(epochs) == launcher.EPOCHS
    known = to_dict(Experiment())
    for name in fields:
        section, field = name.split(".")
        assert field.replace("-", "_") in known[section]

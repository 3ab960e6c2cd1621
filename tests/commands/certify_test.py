"""`jaxmoe certify`: its files hold what it proved, and bad input is one line."""

import csv
import dataclasses
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.data import Loader
from jaxmoe.evaluation import evaluate_suite
from jaxmoe.evaluation.certify.lipschitz_bounds import logit_difference_bounds
from jaxmoe.evaluation.engine.part import take_part_of
from jaxmoe.runs.build import build_modules, evaluation_loader
from jaxmoe.runs.run import load
from tests.commands.tiny import refused, run


def test_certified_is_at_most_what_an_attack_leaves(trained, folder, capsys, monkeypatch):
    attacked = []

    def counted(model, *arguments, **options):
        attacked.append(model)
        return evaluate_suite(model, *arguments, **options)

    monkeypatch.setattr("jaxmoe.evaluation.evaluate_suite", counted)
    assert run("certify run --radii 0 0.2 0.4 --samples 40 --limit 9 --steps 3") == 0
    assert len(attacked) == 1  # both methods are of one model
    printed = capsys.readouterr().out
    for name in ("certificate.json", "certificate.md", "certificate.csv", "certificate.png"):
        assert (trained / name).stat().st_size > 0
        assert name in printed
    lipschitz, smoothing = json.loads((trained / "certificate.json").read_text())
    assert [lipschitz["method"], smoothing["method"]] == ["lipschitz", "smoothing"]
    for curve in (lipschitz, smoothing):
        assert curve["n"] == 9
        assert curve["radii"] == [0.0, 0.2, 0.4]
        assert np.all(np.diff(curve["certified_accuracy"]) <= 0)
    certified, under = lipschitz["certified_accuracy"], lipschitz["accuracy_under_pgd"]
    assert certified[0] == under[0]
    assert np.all(np.array(certified) <= under)
    # 40 of 40 votes bound a probability by 0.001^(1/40) = 0.841, and the radius by 0.25 Φ⁻¹(0.841).
    assert smoothing["certified_accuracy"][2] == 0
    assert smoothing["median_radius"] < 0.2501
    assert "hard top-1 mixture" in printed
    assert smoothing["classifier"] == "the mixture under noise of σ = 0.25, by majority"
    assert "PGD-3 without noise %" in printed
    assert smoothing["settings"]["samples"] == 40
    assert smoothing["settings"]["largest_radius"] == pytest.approx(0.25 * 0.9998, abs=2e-3)
    assert "40 samples, which certify at most 0.25 " in printed
    assert (lipschitz["seed"], lipschitz["checkpoint"]) == (0, "latest")
    assert "checkpoint latest" in (trained / "certificate.md").read_text()
    verdict = printed.splitlines()[-2]
    assert "sign of masked gradients" in verdict
    assert verdict == lipschitz["masked_gradients"] == smoothing["masked_gradients"]
    assert verdict in (trained / "certificate.md").read_text()
    with open(trained / "certificate.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    for curve in (lipschitz, smoothing):
        own = [line for line in lines if line["method"] == curve["method"]]
        assert len({line["index"] for line in own}) == 9
        right = [float(line["radius"]) for line in own if line["prediction"] == line["label"]]
        for radius, certified in zip(curve["radii"], curve["certified_accuracy"], strict=True):
            assert sum(r > radius or radius == 0 for r in right) == round(9 * certified)

    found = load(trained)
    router, expert = build_modules(found.experiment, 10)
    route, params = found.mixture.route, found.params
    radii = []
    drawn = take_part_of(found.dataset.test, 9)
    for batch in evaluation_loader(drawn, found.experiment.data, 1):
        x = jnp.asarray(batch["clip"], jnp.float32) / 255
        logits = route(params, x)[0]
        first, second = jnp.argsort(-logits)[:2]
        own = jax.tree.map(lambda leaf, first=first: leaf[first], params["experts"])
        z = expert.apply(own, x)[0]
        of_router = logit_difference_bounds(router, params["router"], x.shape[1:], "l2")
        of_expert = logit_difference_bounds(expert, own, x.shape[1:], "l2")
        margins = [(z.max() - z[j]) / of_expert[z.argmax(), j] for j in range(10) if z[j] < z.max()]
        stable = (logits[first] - logits[second]) / of_router[first, second]  # of two experts
        if z.argmax() == batch["label"][0]:
            radii.append(min(stable, *margins))
    assert len(radii) == 9 * lipschitz["certified_accuracy"][0] > 0
    assert lipschitz["median_radius"] == pytest.approx(float(np.median(radii)), rel=1e-3)


@pytest.mark.nightly
def test_an_expert_alone_is_certified_by_its_own_constants(trained, folder, capsys, monkeypatch):
    crop = "the middle 8 × 8 of 16 × 16"
    monkeypatch.setattr("jaxmoe.runs.build.cropped", lambda *_: f"evaluated is {crop}")
    arguments = "--method lipschitz --radii 0 0.001 --limit 6 --steps 2"
    assert run(f"certify run@expert1 {arguments}") == 0
    assert "expert 1 alone" in capsys.readouterr().out
    (record,) = json.loads((trained / "expert1" / "certificate.json").read_text())
    assert (record["part"], record["crop"]) == ("expert1", crop)
    assert f"part expert1, crop {crop}." in (trained / "expert1" / "certificate.md").read_text()
    with open(trained / "expert1" / "certificate.csv", encoding="utf-8") as file:
        lines = list(csv.DictReader(file))
    found = load(trained)
    _, expert = build_modules(found.experiment, 10)
    own = jax.tree.map(lambda leaf: leaf[1], found.params["experts"])
    loader = evaluation_loader(take_part_of(found.dataset.test, 6), found.experiment.data, 1)
    for line, batch in zip(lines, loader, strict=True):
        x = jnp.asarray(batch["clip"], jnp.float32) / 255
        z, bounds = expert.apply(own, x)[0], logit_difference_bounds(expert, own, x.shape[1:], "l2")
        least = min((z.max() - z[j]) / bounds[z.argmax(), j] for j in range(10) if z[j] < z.max())
        assert int(line["prediction"]) == z.argmax()
        assert float(line["radius"]) == pytest.approx(float(least), rel=1e-3)
    assert len(lines) == 6


def test_some_examples_of_a_sorted_split_are_drawn_by_class(trained, folder, capsys, monkeypatch):
    """The first twenty of a split that is sorted by class were all of one class."""

    def load_sorted(*arguments, **options):
        found = load(*arguments, **options)
        test = found.dataset.test
        order = np.argsort(test.labels % 2, kind="stable")  # two classes
        records = [dataclasses.replace(r, label=r.label % 2) for r in test.records]
        test = test.take([records[place] for place in order])
        return found._replace(dataset=dataclasses.replace(found.dataset, test=test))

    passes, begin = [], Loader.__iter__
    monkeypatch.setattr(Loader, "__iter__", lambda self: passes.append(1) or begin(self))
    monkeypatch.setattr("jaxmoe.runs.run.load", load_sorted)
    arguments = "--method lipschitz --radii 0 --steps 1 --limit 4"
    assert run(f"certify run@expert0 {arguments}") == 0
    assert len(passes) == 3  # certificates, and PGD with its clean clips
    assert "test examples: 4 of 10, drawn by class, seed 0\n" in capsys.readouterr().out
    with open(trained / "expert0" / "certificate.csv", encoding="utf-8") as file:
        labels = [int(line["label"]) for line in csv.DictReader(file)]
    assert len(labels) == 4
    assert abs(sum(labels) - 4 * np.mean(load_sorted(trained).dataset.test.labels)) < 1
    (record,) = json.loads((trained / "expert0" / "certificate.json").read_text())
    assert record["examples"] == "4 of 10, drawn by class, seed 0"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--method smoothing --norm linf", "in l2, not in linf; --method lipschitz does"),
        ("--sigma 0", "smoothing.sigma: 0.0 is not a finite number above 0"),
        ("--samples 0", "smoothing.samples: 0 is not at least 1"),
        ("--radii -1", "--radii: -1 is not accepted"),
        ("--limit 0", "--limit: 0 is not accepted; expected at least 1"),
        ("--method proof", "proof"),
    ],
)
def test_bad_input_is_one_line(described, folder, arguments, message, capsys):
    del described
    assert message in refused(f"certify run {arguments}", folder, capsys)


def test_parts_without_constants_are_refused(described, folder, capsys):
    del described
    message = "RUN: run@mean has no constants; --method smoothing takes it"
    assert message in refused("certify run@mean", folder, capsys)

"""The tables of `jaxmoe study`: seeds, blocks, and what transfers."""

import dataclasses

import numpy as np
import pytest

from jaxmoe.commands.study_page import findings
from jaxmoe.commands.study_report import paired_table, tables_of, transfer_table
from jaxmoe.config import Arm, Study
from jaxmoe.evaluation.engine.rows import Row
from jaxmoe.evaluation.transfer.transfer_result import TransferRow
from jaxmoe.reporting import write_transfer
from jaxmoe.runs.study.cells import Block, Cell
from jaxmoe.runs.study.cost import Cost
from jaxmoe.runs.study.found import Found, is_transferred
from jaxmoe.runs.study.results import Results, over_seeds
from tests.commands.tiny import TINY


def toy(fold, seed, right, arm="a"):
    clean = np.ones(len(right), np.float32)
    correct = {("clean", 0.0): clean, ("pgd", 0.1): np.asarray(right, np.float32)}
    cell = Cell(Block("", fold, seed), arm)
    return Found(cell, (), np.arange(len(right)), correct, {}, 60.0)


def test_seeds_are_no_further_examples():
    runs = [toy("f0", s, [1, 0, 0, 1]) for s in (0, 1)] + [toy("f1", s, [1, 1]) for s in (0, 1)]
    np.testing.assert_array_equal(over_seeds(runs, "pgd", 0.1), [1, 0, 0, 1, 1, 1])
    runs[1] = toy("f0", 1, [1, 1, 0, 0])
    np.testing.assert_array_equal(over_seeds(runs, "pgd", 0.1), [1, 0.5, 0, 0.5, 1, 1])
    study = Study(TINY, {"a": Arm("a")}, folds={"f0": {}, "f1": {}}, seeds=(0, 1))
    # 4 of 6 examples; the folds have 50 and 100 %, whose standard error is 25 points.
    assert Results(study, runs, {}).share(runs, "worst-case", 0.1) == "66.7 ± 25.0"


def test_arms_are_compared_in_the_blocks_that_all_have():
    study = Study(TINY, {"a": Arm("a"), "b": Arm("b")}, folds={"f0": {}, "f1": {}})
    runs = [toy("f0", 0, [1]), toy("f1", 0, [1]), toy("f0", 0, [0], arm="b")]
    results = Results(study, runs, {})
    assert [len(own) for own in results.arms.values()] == [1, 1]
    assert results.left_out == 1
    other = toy("f0", 0, [0, 0], arm="b")
    with pytest.raises(ValueError, match="f0-seed0/a and f0-seed0/b were judged by other test"):
        paired_table(Results(study, [runs[0], other], {}), "a")


def test_a_transfer_matrix_is_of_all_arms(tmp_path):
    own = Study(TINY, {"a": Arm("a"), "b": Arm("b")}, transfer=("pgd",), epsilons=(0.1,))
    folder = tmp_path / "seed0" / "transfer"
    assert not is_transferred(own, folder, ["a", "b"])
    common = (0.1, "linf", 0.5, 0.5, 1.0, 10, 0)
    rows = [
        TransferRow(source, f"x/{target}", "pgd", *common)
        for source in ("a", "b", "all others")
        for target in "ab"
    ]
    rows[-1] = rows[-1]._replace(robust_accuracy=0.25)
    write_transfer(rows, folder)
    assert is_transferred(own, folder, ["a", "b"])
    assert is_transferred(own, folder, ["a"])  # `--arms a` makes no other
    assert not is_transferred(own, folder, ["a", "b", "c"])
    seen_by_none = dataclasses.replace(own, transfer=("pgd", "universal"))
    assert not is_transferred(seen_by_none, folder, ["a", "b"])
    more = dataclasses.replace(own, transfer=("pgd", "fgsm"))
    assert not is_transferred(more, folder, ["a", "b"])
    results = Results(own, [toy("", 0, [1], arm) for arm in "ab"], {})
    assert transfer_table(results, tmp_path).rows == [["a", "50.0"], ["b", "25.0"]]


def test_a_study_says_what_came_out():
    arms = {name: Arm(name.upper()) for name in ("a", "b", "c")}
    study = Study(TINY, arms, epsilons=(0.1,), compared=("a",), simplest="c")
    runs = [
        toy("", 0, [1] * 30 + [0] * 10, "a"),
        toy("", 0, [1] * 11 + [0] * 29, "b"),
        toy("", 0, [1] * 10 + [0] * 30, "c"),
    ]
    best, first, second = findings(Results(study, runs, {}))
    assert best == (
        "A is the highest in the worst case at ε = 0.1: right on 75.0 % of 40 examples "
        "(58.8 to 87.3), and on 100.0 % when clean."
    )
    assert first.startswith("A is 47.5 points above B, the next, in the worst case at ε = 0.1 (+")
    assert first.endswith(").")
    own = dataclasses.replace(study, compared=("b",))
    *_, last = findings(Results(own, runs, {}))
    assert last.startswith(
        "B is 2.5 points above C, the simplest arm, in the worst case at ε = 0.1"
    )
    assert last.endswith("; the interval holds 0, so these examples do not tell them apart.")
    assert second.startswith("A is 50.0 points above C, the simplest arm, in the worst case")
    alone = dataclasses.replace(study, simplest=None, compared=())
    assert len(findings(Results(alone, runs[:1], {}))) == 1


def test_what_an_arm_took_is_said_where_it_took_more():
    study = Study(TINY, {"a": Arm("A"), "b": Arm("B")}, compared=("a",), simplest="b")
    runs = [toy("", 0, [1, 0], "a"), toy("", 0, [1, 1], "b")]
    for gradients, said in (
        (10.0, "the simplest arm, in"),
        (40.0, "for 4 times its gradients, in"),
    ):
        costs = {("", "a"): Cost(gradients, 0, 1, 1, 1), ("", "b"): Cost(10.0, 0, 1, 1, 1)}
        assert said in findings(Results(study, runs, costs))[-1]


def test_what_routers_decide_is_said():
    def of(arm, mixture, random_route, best):
        found = {"mixture": mixture, "random_route": random_route, "best_single": best}
        details = {"specialization": {name: {"value": value} for name, value in found.items()}}
        return toy("", 0, [1, 0], arm)._replace(details=details)

    study = Study(TINY, {"a": Arm("A"), "b": Arm("B"), "c": Arm("one network")})
    runs = [of("a", 0.8, 0.5, 0.6), of("b", 0.7, 0.72, 0.75), toy("", 0, [1, 0], "c")]
    said = findings(Results(study, runs, {}))[-1]
    assert "costs the 2 mixtures from -2.0 to +30.0 points of clean accuracy" in said
    assert said.endswith("the best expert alone is as good or better in 1 of 2.")
    assert "costs the mixture +30.0 points" in findings(Results(study, [runs[0], runs[2]], {}))[-1]


def test_lipschitz_figures_are_of_all_arms_and_of_the_routers_that_there_are(tmp_path):
    def of(arm, seed, epsilon, model, router, experts):
        figures = {"lipschitz_model_mean": model, "lipschitz_router_weights_mean": router}
        row = Row("pgd", epsilon, "linf", 0.5, 0.5, 2, 0, 10, 1, 10, 1.0, 0.0, **figures)
        row = row._replace(lipschitz_experts_mean=[model] * experts)
        return toy("", seed, [1, 0], arm)._replace(rows=(row,))

    arms = {name: Arm(name.upper()) for name in "abc"}
    study = Study(TINY, arms, seeds=(0, 1), epsilons=(0.1,))
    runs = [of("a", seed, 0.1, 100.0 + 200 * seed, 1.0 + 2 * seed, 4) for seed in (0, 1)]
    runs += [of("b", seed, 0.1, 5e4, 0.0, 1) for seed in (0, 1)]
    runs += [of("c", seed, 0.2, 7.0, 1.0, 4) for seed in (0, 1)]  # by another study
    tables = {
        table.titles[0]: table.rows for table in tables_of(Results(study, runs, {}), tmp_path)
    }
    assert tables["Lipschitz under PGD 0.1"] == [["A", "200", "2"], ["B", "5e+04", "–"]]


def test_arms_that_share_no_block_are_not_compared():
    study = Study(TINY, {"a": Arm("a"), "b": Arm("b")}, compared=("a",), simplest="b")
    results = Results(study, [toy("f0", 0, [1]), toy("f1", 0, [0], arm="b")], {})
    (said,) = findings(results)
    assert said.startswith("Arms have runs in other blocks")
    assert paired_table(results, "a").rows == []


def test_a_radius_is_in_the_units_of_its_norm():
    l2 = dataclasses.replace(TINY, threat=dataclasses.replace(TINY.threat, norm="l2"))
    of = lambda experiment: Results(Study(experiment, {"a": Arm("a")}), [toy("", 0, [1])], {})  # noqa: E731
    assert of(l2).radius(1.0) == "1"
    assert of(TINY).radius(4 / 255) == "4/255"

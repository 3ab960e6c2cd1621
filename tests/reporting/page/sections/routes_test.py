"""Routes: what a cascade never attacked is left out, and each class has its load and entropy."""

import re

import numpy as np
import pytest

from jaxmoe.reporting.page import gather, page
from jaxmoe.reporting.page.sections.routes import routes
from tests.reporting.page.folders import CASCADE, RADII, make_run


def panel_of(run, attack):
    (found,) = (p for p in routes(run).panels if p.label == f"{attack}, ε = 8/255")
    return found


def test_a_cascade_leaves_out_what_it_never_attacked(tmp_path):
    run = gather(make_run(tmp_path / "run", n=60, attacks=("pgd", CASCADE)))
    examples = run.examples
    attacked = examples.correct[0] > 0
    wrong = int((~attacked).sum())
    assert wrong > 2
    panel = panel_of(run, CASCADE)
    line = examples.line(CASCADE, RADII[1])
    turned = (examples.expert[line] != examples.expert[0]) & attacked
    assert panel.sentence.startswith(f"{turned.sum()} of {60 - wrong} examples")
    assert f"{wrong} examples that are wrong when clean are left out" in panel.sentence
    (stayed,) = (text for name, text in panel.facts if name.startswith("stayed"))
    right = examples.correct[line][attacked & ~turned]
    assert f"{right.sum():.0f} of {len(right)};" in stayed
    assert sum(int(row[1]) for row in panel.classes[0].rows) == 60 - wrong
    assert panel.load is not None
    plain = panel_of(run, "pgd")
    assert "of 60 examples" in plain.sentence
    assert "left out" not in plain.sentence


def test_the_costs_are_over_what_was_right_when_clean(tmp_path):
    run = gather(make_run(tmp_path / "run", n=60))
    examples, line = run.examples, run.examples.line("pgd", RADII[1])
    clean = examples.correct[0] > 0
    flipped = examples.expert[line] != examples.expert[0]
    facts = dict(panel_of(run, "pgd").facts)
    assert (~clean & flipped).any() or (~clean & ~flipped).any()
    for name, own in (("flipped", flipped), ("stayed", ~flipped)):
        text = facts[f"{name}: still right under attack, of those right when clean"]
        kept = (examples.correct[line] > 0) & clean & own
        assert f"({kept.sum()} of {(clean & own).sum()};" in text


@pytest.mark.parametrize(
    ("into", "said"),
    [
        ((0, 5, 2, 2), "Expert 1 takes most of the turned ones: 5 of 9"),
        ((1, 4, 2, 2), "Expert 1 takes the largest part of the turned ones: 4 of 9"),
        (
            (3, 3, 3, 0),
            "Experts 0, 1 and 2 take the largest parts of the turned ones: 3 of 9 each",
        ),
        ((4, 4, 0, 0), "Experts 0 and 1 take the largest parts of the turned ones: 4 of 8 each"),
    ],
)
def test_the_expert_that_takes_most_has_more_than_half(tmp_path, into, said):
    run = gather(make_run(tmp_path / "run", attacks=("pgd",)))
    expert = np.zeros_like(run.examples.expert)
    to = np.repeat(np.arange(4), into)
    expert[:, : len(to)] = (to + 1) % 4
    expert[1:, : len(to)] = to
    run = run._replace(examples=run.examples._replace(expert=expert))
    assert panel_of(run, "pgd").sentence.endswith(f"another expert. {said}.")


@pytest.mark.parametrize("experts", [4, 12])
def test_each_class_has_its_load_and_entropy(tmp_path, experts):
    run = gather(make_run(tmp_path / "run", experts=experts, n=40))
    examples, panel = run.examples, panel_of(run, "tlga-r")
    lines = [0, examples.line("tlga-r", RADII[1])]
    table, *loads = panel.classes
    assert len(loads) == (experts <= 8)
    for number, row in enumerate(table.rows):
        own = examples.label == number
        weights = examples.weights[lines][:, own].astype(np.float64)
        means = [float(np.mean(-(w * np.log(w)).sum(-1))) for w in weights]
        cells = dict(zip(table.titles, row, strict=True))
        assert cells["entropy, nats"] == "{:.2f} → {:.2f}".format(*means)
        for load in loads:
            shares = [
                np.bincount(examples.expert[line][own], minlength=experts) / own.sum()
                for line in lines
            ]
            cells = [f"{100 * a:.0f} → {100 * b:.0f}" for a, b in zip(*shares, strict=True)]
            assert load.rows[number] == [run.class_name(number), *cells]


def test_several_routes_have_entropies_and_no_flow(tmp_path):
    run = gather(make_run(tmp_path / "run", several_routes=True))
    panel = panel_of(run, "pgd")
    assert panel.flow is None
    assert "first choices" in panel.sentence
    assert "examples" not in panel.sentence
    (table,) = panel.classes
    assert table.titles == ["class", "n", "entropy, nats"]
    assert re.fullmatch(r"\d\.\d\d → \d\.\d\d", table.rows[0][-1])
    assert "the mean over its routes" in page([run])

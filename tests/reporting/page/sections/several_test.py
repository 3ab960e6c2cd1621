"""Several runs side by side: only what was judged alike is subtracted, and words say the rest."""

import re

import numpy as np
import pytest

from jaxmoe.reporting.page import gather, page
from jaxmoe.reporting.page.sections.several import several
from tests.reporting.page.folders import ATTACKS, RADII, make_run


@pytest.fixture
def judged(tmp_path):
    """Makes a run, always on the same examples."""

    def make(name, **kind):
        return gather(make_run(tmp_path / name, **kind))

    return make


def weaker(run, seed=3):
    """The same run, some of whose examples are right where they were wrong, or the other way."""
    random = np.random.default_rng(seed)
    correct = np.where(random.random(run.examples.correct.shape) < 0.3, 0, run.examples.correct)
    return run._replace(examples=run.examples._replace(correct=correct))


def test_the_worst_case_is_over_the_attacks_that_both_have(judged):
    first, second = weaker(judged("first")), judged("second", attacks=("pgd",))
    (pair,) = several([first, second]).paired
    assert (pair.base, pair.name) == ("first", "second")
    assert "over pgd alone" in pair.note
    assert [row.attack for row in pair.rows[:3]] == [
        "worst-case of shared attacks, ε = 4/255",
        "worst-case of shared attacks, ε = 8/255",
        "clean",
    ]
    for row, within in zip(pair.rows[:2], (RADII[:1], RADII), strict=True):
        means = []
        for run in (first, second):
            lines = [("clean", 0.0), *(("pgd", radius) for radius in within)]
            places = [run.examples.lines.index(line) for line in lines]
            means.append(100 * run.examples.correct[places].min(axis=0).mean())
        assert (row.first, row.second) == tuple(f"{mean:.1f}" for mean in means)
        assert row.points == f"{means[1] - means[0]:+.1f}"


def test_the_worst_case_of_the_same_attacks_is_that_of_the_table(judged):
    first, second = judged("first"), judged("second")
    found = several([first, second])
    assert found.unlike == []
    assert not any(run.otherwise for run in found.runs)
    row = next(row for row in found.paired[0].rows if row.attack == "worst-case, ε = 8/255")
    assert row.first == f"{100 * first.worst[-1].robust_accuracy:.1f}"


@pytest.mark.parametrize("place", [0, 1, 2])
def test_the_most_robust_run_is_paired_with_each_other_one(judged, place):
    others = [weaker(judged("bad", n=60), seed=3), weaker(judged("worse", n=60), seed=4)]
    # It lacks an attack, so that its own worst case is not that of the others.
    best = judged("best", n=60, attacks=ATTACKS[:3])
    runs = [*others[:place], best, *others[place:]]
    found = several(runs)
    assert found.unpaired == []
    assert [(pair.base, pair.name) for pair in found.paired] == [("bad", "best"), ("worse", "best")]
    for pair in found.paired:
        row = next(r for r in pair.rows if r.attack == "worst-case of shared attacks, ε = 8/255")
        assert f"best is the most robust: {row.second} % in the {row.attack};" in pair.sentence
        assert f"above {pair.base} by {row.points} points ({row.range})." in pair.sentence
        assert float(row.points) > 0
        assert ("may be chance" in pair.sentence) != row.sure
        assert pair.sentence in page(runs)


def test_a_run_that_is_weaker_under_an_attack_that_not_all_have_is_not_the_most_robust(judged):
    strong, easy = judged("strong", n=60), weaker(judged("easy", n=60, attacks=("pgd",)))
    assert easy.worst[-1].robust_accuracy > strong.worst[-1].robust_accuracy
    (pair,) = several([easy, strong]).paired
    assert (pair.base, pair.name) == ("easy", "strong")


def test_the_cost_of_training_is_beside_the_figures_with_that_of_its_start(judged):
    start, run = judged("standard"), judged("at_m")
    start = start._replace(trained={"seconds": 75.0, "global_step": 1200})
    config = run.config | {"training": {"initialize_from": "elsewhere/runs/standard/"}}
    run = run._replace(config=config, trained={"seconds": 20.0, "global_step": 300})
    found = several([start, run, judged("unknown")]).runs
    assert [own.training for own in found] == ["1:15, 1 200 steps", "0:20, 300 steps", "–"]
    assert [own.start for own in found] == ["", "standard", ""]
    assert "+ its start standard" in page([start, run])
    (own, _) = several([run, judged("another")]).runs
    assert own.start == ""


def test_of_two_starts_of_the_same_name_it_is_the_one_of_that_path(judged):
    starts = [judged(f"{block}/standard") for block in ("a", "b")]
    starts = [run._replace(name=f"{i}/standard") for i, run in enumerate(starts)]
    run = judged("b/at_m")
    config = run.config | {"training": {"initialize_from": "runs/b/standard"}}
    assert several([run._replace(config=config), *starts]).runs[0].start == "1/standard"


def test_runs_on_other_examples_are_compared_among_themselves(judged):
    runs = [judged("one"), judged("two"), judged("three", seed=7), judged("four", seed=8)]
    found = several(runs)
    assert [{pair.base, pair.name} for pair in found.paired] == [{"one", "two"}]
    said = "No paired difference of three and four: judged on other examples than one."
    assert found.unpaired == [said]
    runs = [judged("five", seed=9), *runs[:2]]
    found = several(runs)
    assert [{pair.base, pair.name} for pair in found.paired] == [{"one", "two"}]
    assert found.unpaired == ["No paired difference of five: judged on other examples than one."]


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ({"attacks": ("pgd",)}, "without tlga-r, pgd-e and j-tlga"),
        ({"attacks": (*ATTACKS, "fgsm")}, "with fgsm besides"),
        ({"steps": 50}, "pgd, tlga-r, pgd-e and j-tlga with steps 50 rather than 10"),
        ({"norm": "l2"}, "in ℓ2 rather than ℓ∞"),
    ],
)
def test_runs_that_were_judged_otherwise_are_flagged_in_words(judged, kind, said):
    runs = [judged("first"), judged("second", **kind)]
    found = several(runs)
    assert [run.otherwise for run in found.runs] == [False, True]
    assert found.unlike == [f"second, judged otherwise than first: {said}."]
    assert said in page(runs)
    if found.curve is not None:
        assert "Not all runs were judged by the same attacks" in found.curve.note


def test_starts_and_gradients_and_step_sizes_are_settings_too(judged):
    first, second = judged("first", attacks=("pgd",)), judged("second", attacks=("pgd",))
    rows = tuple(row._replace(gradient="hard", restarts=3) for row in second.rows)
    first = first._replace(rows=tuple(row._replace(gradient="soft") for row in first.rows))
    second = second._replace(rows=rows, details={"settings": {"alpha": 0.5}})
    (said,) = several([first, second]).unlike
    for part in ("restarts 3 rather than 1", "gradient hard rather than soft", "alpha 0.5 rather"):
        assert part in said


def test_across_norms_there_is_but_the_clean_line(judged):
    found = several([judged("first"), judged("second", norm="l2")])
    assert found.titles == [
        "clean %",
        "worst case at ℓ2 0.5 %",
        "worst case at ℓ2 1 %",
        "worst case at ℓ∞ 4/255 %",
        "worst case at ℓ∞ 8/255 %",
    ]
    for run, unknown in zip(found.runs, (slice(1, 3), slice(3, 5)), strict=True):
        texts = [text for text, _ in run.figures]
        assert texts[unknown] == ["–", "–"]
        assert texts.count("–") == 2
    (pair,) = found.paired
    assert [row.attack for row in pair.rows] == ["clean"]
    assert "in ℓ∞ and second in ℓ2" in pair.note
    assert found.curve is None


def test_the_same_radius_in_another_norm_is_not_the_same(judged):
    first, second = judged("first"), judged("second")
    second = second._replace(rows=tuple(row._replace(norm="l2") for row in second.rows))
    found = several([first, second])
    assert len(found.titles) == 5
    assert [row.attack for row in found.paired[0].rows] == ["clean"]


CUSTOM = "auto-attack-custom"


def made_of(run, *attacks, cascade=CUSTOM, steps=100):
    """The same run, with a cascade of these attacks."""
    lines = [{"cascade": cascade, "attack": each} for each in attacks]
    return run._replace(details=run.details | {"cascades": lines, "settings": {"steps": steps}})


def test_cascades_of_one_name_with_other_stages_are_two_attacks(judged):
    first, second = (judged(name, attacks=("pgd", CUSTOM)) for name in ("first", "second"))
    first = made_of(first, "apgd-ce", "apgd-t")
    alike = several([first, made_of(second, "apgd-ce", "apgd-t")])
    assert alike.unlike == []
    assert sum(row.attack.startswith(CUSTOM) for row in alike.paired[0].rows) == 2
    for other, said in (
        (made_of(second, "apgd-ce"), "stages apgd-ce rather than apgd-ce, apgd-t"),
        (made_of(second, "apgd-ce", "apgd-t", steps=10), "steps 10 rather than 100"),
    ):
        found = several([first, other])
        assert found.unlike == [f"second, judged otherwise than first: {CUSTOM} with {said}."]
        assert not any(row.attack.startswith(CUSTOM) for row in found.paired[0].rows)
        assert "over pgd alone" in found.paired[0].note


@pytest.mark.parametrize("cascade", [CUSTOM, "auto-attack"])
def test_a_cascade_whose_stages_nobody_kept_is_what_its_name_says(judged, cascade):
    first, second = (judged(name, attacks=("pgd", cascade)) for name in ("first", "second"))
    found = several([made_of(first, "apgd-ce", cascade=cascade, steps=10), second])
    assert found.unlike == []
    assert sum(row.attack.startswith(cascade) for row in found.paired[0].rows) == 2


def test_pixels_are_not_mean_iou(judged):
    runs = [judged(name, dense=True, frames=1) for name in ("first", "second")]
    found = several(runs)
    value = 100 * runs[0].clean.mean_iou
    between = f"mIoU, {0.9 * value:.1f} to {1.1 * value:.1f}"
    assert found.runs[0].figures[0] == (f"{value:.1f}", between)
    text = " ".join(re.sub(r"<[^>]+>", " ", page(runs)).split())
    assert "Points of robust pixels" in text
    assert "not mIoU" in text


def test_the_sentence_is_of_the_largest_radius_in_any_order_of_rows(judged):
    first, second = weaker(judged("first")), judged("second")
    (wanted,) = several([first, second]).paired
    turned = [run._replace(rows=(run.rows[0], *run.rows[:0:-1])) for run in (first, second)]
    (found,) = several(turned).paired
    assert "ε = 8/255" in wanted.sentence
    assert found.sentence == wanted.sentence

"""The page of a run's folder: its numbers are those of `results.json`, each name is escaped."""

import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.evaluation.engine.rows import Check
from jaxmoe.evaluation.measures.significance import estimate_difference, interval
from jaxmoe.reporting.page import gather, page, write_page
from jaxmoe.reporting.page.arrays import WRONG_WHEN_CLEAN, smallest_breaking
from jaxmoe.reporting.page.sections.verdict import verdict
from jaxmoe.reporting.results import read_results
from jaxmoe.threat import format_epsilon
from tests.reporting.page.folders import CASCADE, RADII, make_run

_EMPTY = {"meta", "link", "img", "br", "input"}  # tags without an end


class Page(HTMLParser):
    """The tags with their attributes and the words of a page; it has to be well nested."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        # Each with its classes, and of every row the words and the values of its cells.
        self.tables: list[tuple[str, list[list[tuple[str, str | None]]]]] = []
        self._open: list[str] = []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        if tag == "table":
            self.tables.append((dict(attrs).get("class", ""), []))
        elif tag == "tr":
            self.tables[-1][1].append([])
        elif tag in ("td", "th"):
            self.tables[-1][1][-1].append(("", dict(attrs).get("data-value")))
        if tag not in _EMPTY:
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open[-1:] not in (["script"], ["style"]):
            self.words.append(data)
        if "td" in self._open or "th" in self._open:
            row = self.tables[-1][1][-1]
            row[-1] = row[-1][0] + data.strip(), row[-1][1]

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.words).split())


def shown(folder, **kind) -> Page:
    return Page(page([gather(make_run(folder, **kind))]))


KINDS = {
    "video": {},
    "image": {"frames": 1},
    "segmentation": {"dense": True, "frames": 1},
    "one expert": {"experts": 1},
    "64 experts": {"experts": 64, "n": 40},
    "101 classes": {"classes": 101, "n": 150, "frames": 1},
    "stopped": {"stopped": True},
    "old": {"old": True},
    "no examples": {"examples": False},
    "no attack": {"attacks": ()},
    "grey": {"frames": 2, "size": (9, 7)},
    "cascade": {"attacks": ("pgd", CASCADE)},
    "ℓ2": {"norm": "l2"},
    "several routes": {"several_routes": True},
    "momentum": {"momentum": True},
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_folder_gives_a_whole_page_that_asks_for_nothing(tmp_path, kind):
    path = write_page([make_run(tmp_path / "a run", **KINDS[kind])])
    text = path.read_text(encoding="utf-8")
    found = Page(text)
    assert path == tmp_path / "a run" / "report.html"
    assert "clean accuracy" in found.text or "clean mIoU" in found.text
    assert not re.search(r"\b(nan|None|Undefined)\b", found.text)
    ids = [own["id"] for _, own in found.tags if "id" in own]
    assert len(ids) == len(set(ids))
    asking = ("src", "href", "srcset", "action", "data", "poster", "xlink:href")
    for _, own in found.tags:
        for name in asking:
            assert own.get(name, "#").startswith(("#", "data:"))
    assert not re.search(r"(https?:)?//[\w.]+\.\w|url\(|@import", text.split("<script>")[0])
    assert path.stat().st_size < 5e6


@pytest.mark.parametrize("kind", [{}, {"norm": "l2", "frames": 1}, {"dense": True, "frames": 1}])
def test_numbers_are_those_of_the_table_of_results(tmp_path, kind):
    folder = make_run(tmp_path / "run", **kind)
    found = Page(page([gather(folder)]))
    ((_, (head, *rows)),) = (t for t in found.tables if "attacks" in t[0].split())
    titles = [title for title, _ in head]
    own = {(row[0][0], row[1][0]): dict(zip(titles, row, strict=True)) for row in rows if row[1:]}
    records = json.loads((folder / "results.json").read_text())
    assert len(own) == len(records)
    assert any(r["accuracy_under_attack"] > r["robust_accuracy"] + 0.01 for r in records)
    for record in records:
        cells = own[record["attack"], format_epsilon(record["epsilon"], record["norm"])]
        expected = {"robust %": record["robust_accuracy"], "flipped %": record["flip_rate"]}
        if kind.get("dense"):
            expected = {"mIoU %": record["mean_iou"], "robust pixels %": record["robust_accuracy"]}
            between = record["mean_iou_interval"]
        else:
            between = interval(record["robust_accuracy"] * record["n"], record["n"])
        said = "{:.1f} to {:.1f}".format(*(100 * side for side in between))
        assert cells["95 % interval"][0] == said
        for title, value in expected.items():
            text, sorted_by = cells[title]
            assert text == ("–" if value is None else f"{100 * value:.1f}")
            assert sorted_by == ("" if value is None else str(value))
        assert cells["gradients"][0] == f"{record['gradient_evaluations']:.0f}"
    worst = records[-1]
    figure = worst["mean_iou" if kind.get("dense") else "robust_accuracy"]
    radius = format_epsilon(worst["epsilon"], worst["norm"])
    assert f"worst case, ε = {radius} {100 * figure:.1f} %" in found.text
    assert "strongest: j-tlga" in found.text


def test_the_strongest_attack_is_said_with_its_share_and_its_strength(tmp_path):
    run = gather(make_run(tmp_path / "run", steps=10), "run")
    notes = [figure.note for figure in verdict(run).figures[1:]]
    name = re.match(r"strongest: (\S+), which", notes[0])[1]  # at the smallest ε
    correct, lines = run.examples.correct.copy(), run.examples.lines
    within = [i for i, (_, epsilon) in enumerate(lines) if 0 < epsilon <= RADII[0] + 1e-6]
    others = [i for i in within if lines[i][0] != name]
    clean = correct[run.examples.clean] > 0.5
    survivor = np.flatnonzero(clean & (correct[within].min(axis=0) > 0.5))[0]
    correct[others[0], survivor] = 0
    own = int((clean & (correct[[i for i in within if i not in others]].min(axis=0) < 0.5)).sum())
    run = run._replace(examples=run.examples._replace(correct=correct))
    said = verdict(run).figures[1].note
    assert said.startswith(notes[0].partition(";")[0])
    assert said.endswith(f"; it breaks {own} of the {own + 1} that any attack breaks")
    assert "10 steps, 1 start" in Page(page([run])).text
    alone = gather(make_run(tmp_path / "alone", attacks=("pgd",)), "alone")
    assert "that any attack breaks" not in Page(page([alone])).text


def test_each_number_of_an_attack_says_what_it_is(tmp_path):
    found = shown(tmp_path / "run").text
    assert "0.25 (constant step size as a share of ε)" in found


def test_a_flag_is_red_and_first(tmp_path):
    checks = (
        Check("router's gradient", 0.0, "pass", "It has one."),
        Check("zero gradients", 1.0, "flag", "All were zero."),
    )
    found = shown(tmp_path / "run", checks=checks)
    assert any("trust bad" in (own.get("class") or "") for _, own in found.tags)
    assert "No: 1 of 2 checks failed" in found.text
    assert found.text.index("All were zero.") < found.text.index("It has one.")
    unchecked = shown(tmp_path / "other", checks=())
    assert any("trust warn" in (own.get("class") or "") for _, own in unchecked.tags)


def test_checks_that_did_not_run_are_said_at_once(tmp_path):
    passed = Check("zero gradients", 0.0, "pass", "None was zero.")
    missing = Check("black box", None, "not run", "No black-box attack ran.")
    found = shown(tmp_path / "a", checks=(passed, missing))
    assert "Nothing speaks against it: 1 check passed, 1 did not run" in found.text
    assert any("trust warn" in (own.get("class") or "") for _, own in found.tags)
    whole = shown(tmp_path / "b", checks=(passed,))
    assert "not run" not in whole.text
    assert any("trust good" in (own.get("class") or "") for _, own in whole.tags)
    flag = passed._replace(verdict="flag")
    found = shown(tmp_path / "c", checks=(flag, missing))
    assert "No: 1 of 1 check failed (1 of 2 not run)" in found.text
    runs = [gather(tmp_path / name, name) for name in "abc"]
    ((_, (_, *rows)),) = (t for t in Page(page(runs)).tables if "overview" in t[0])
    assert [row[-1] for row in rows] == [
        ("0 of 1, 1 not run", "0"),
        ("0 of 1", "0"),
        ("⚑ 1 of 1, 1 not run", "1"),
    ]


def test_the_worst_case_and_the_confusion_are_explained(tmp_path):
    worst, confusion = "so it may be below the strongest single attack", "Confusion counts what"
    found = shown(tmp_path / "a").text
    assert worst in found
    assert confusion in found
    assert "example by example, so it may" in found
    found = shown(tmp_path / "b", dense=True, frames=1).text
    assert "image by image, so it may" in found
    assert worst not in shown(tmp_path / "c", stopped=True).text
    assert confusion not in shown(tmp_path / "d", old=True).text


def test_what_is_not_there_is_said_in_words(tmp_path):
    assert "Stopped." in shown(tmp_path / "a", stopped=True).text
    assert "no worst case was computed" in shown(tmp_path / "a", stopped=True).text
    assert "of before predictions and routes were kept" in shown(tmp_path / "b", old=True).text
    assert "There is no examples.npz" in shown(tmp_path / "c", examples=False).text
    assert "one expert: there is no route" in shown(tmp_path / "d", experts=1).text


def test_examples_of_another_evaluation_are_left_out(tmp_path):
    folder = make_run(tmp_path / "run")
    other = make_run(tmp_path / "other", seed=5)
    (other / "examples.npz").rename(folder / "examples.npz")
    found = gather(folder)
    assert found.examples is None
    assert "of another evaluation" in Page(page([found])).text


def test_names_and_paths_are_escaped(tmp_path):
    evil = ("<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "a' b\"", "{{ 7 * 7 }}")
    folder = make_run(tmp_path / 'a "path" <b>\'s', classes=evil, n=40)
    found = Page(page([gather(folder)]))
    assert sum(tag == "script" for tag, _ in found.tags) == 1
    assert not any(name.startswith("on") for _, own in found.tags for name in own)
    assert not any(own.get("src") == "x" for _, own in found.tags)
    for name in evil:
        assert name in found.text
    assert folder.name in found.text


def test_the_routes_add_up(tmp_path):
    folder = make_run(tmp_path / "run", n=30)
    found = gather(folder)
    line = found.examples.line("tlga-r", RADII[1])
    expert = found.examples.expert
    turned = int((expert[line] != expert[0]).sum())
    assert f"{turned} of 30 examples ({100 * turned / 30:.1f} %" in Page(page([found])).text
    row = next(row for row in read_results(folder) if row[:2] == ("tlga-r", RADII[1]))
    assert row.flip_rate == pytest.approx(turned / 30)


def test_the_smallest_radius_that_breaks_and_who_broke(tmp_path):
    found = gather(make_run(tmp_path / "run"))
    examples = found.examples
    least, by = smallest_breaking(examples)
    for place in range(len(least)):
        right = dict(zip(examples.lines, examples.correct[:, place], strict=True))
        wrong = [(radius, attack) for (attack, radius), value in right.items() if value < 0.5]
        if (0.0, "clean") in wrong:
            assert least[place] == WRONG_WHEN_CLEAN
            assert by[place] == []
        elif wrong:
            assert least[place] == min(wrong)[0]
            assert set(by[place]) == {attack for _, attack in wrong}
        else:
            assert np.isinf(least[place])


def test_runs_are_compared_over_the_same_examples(tmp_path):
    one = make_run(tmp_path / "one")
    two = make_run(tmp_path / "two", attacks=("pgd", "tlga-r"))
    path = write_page([one, two])
    assert path == tmp_path / "report.html"
    found = Page(path.read_text(encoding="utf-8"))
    shared = [
        examples.correct[[i for i, line in enumerate(examples.lines) if line[0] in both]].min(0)
        for examples in (gather(one).examples, gather(two).examples)
        for both in [("clean", "pgd", "tlga-r")]
    ]
    worst = estimate_difference(shared[1], shared[0])
    said = f"{100 * worst.value:+.1f} {100 * worst.low:+.1f} to {100 * worst.high:+.1f}"
    assert f"worst-case of shared attacks, ε = 8/255 {100 * shared[0].mean():.1f}" in found.text
    assert said in found.text
    different = make_run(tmp_path / "three", seed=7)
    assert "judged on other examples" in Page(page([gather(one), gather(different)])).text


def test_a_transfer_matrix_beside_the_runs_is_shown(tmp_path):
    runs = [make_run(tmp_path / name) for name in ("one", "two")]
    row = {"source": "one", "target": "two", "attack": "pgd", "epsilon": RADII[0], "norm": "linf"}
    row |= {"robust_accuracy": 0.625, "accuracy_under_attack": 0.7, "clean_accuracy": 0.9}
    (tmp_path / "transfer").mkdir()
    (tmp_path / "transfer" / "transfer.json").write_text(json.dumps([row | {"n": 24, "seed": 0}]))
    assert "pgd, ε = 4/255 (linf): robust accuracy %" in Page(page(list(map(gather, runs)))).text


def test_twelve_clips_fit_five_megabytes(tmp_path):
    path = write_page([make_run(tmp_path / "run", frames=12, size=(40, 40), shown=12)])
    assert path.stat().st_size < 5e6
    found = Page(path.read_text(encoding="utf-8"))
    assert sum(tag == "canvas" for tag, _ in found.tags) == 36


@pytest.mark.parametrize(
    ("file", "said"),
    [
        ("examples.npz", "its examples.npz is damaged"),
        ("shown.npz", "its shown.npz is damaged"),
        ("results.json", "its results.json is damaged"),
        ("run.json", "its run.json is damaged"),
    ],
)
def test_a_damaged_file_is_one_line(tmp_path, capsys, file, said):
    folder = make_run(tmp_path / "run")
    (folder / file).write_bytes((folder / file).read_bytes()[:-40])
    assert main(["report", str(folder)]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line
    assert not (folder / "report.html").exists()


def test_the_command_writes_where_it_is_told(tmp_path, capsys, monkeypatch):
    folder = make_run(tmp_path / "a run")
    assert main(["report", str(folder)]) == 0
    assert capsys.readouterr().out == f"written to {folder / 'report.html'}\n"
    output = tmp_path / "new" / "page.html"
    assert main(["report", str(folder), str(folder), "--output", str(output)]) == 0
    assert "a run (1)" in output.read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere"], "RUN: no config.json in nowhere; expected the folder of a run"),
        (["run"], "RUN: no results.json in run; expected a run that was judged"),
        ([], "the following arguments are required: RUN"),
        (["run", "--seed", "-1"], "--seed: -1 is not accepted; expected at least 0"),
        (["run", "--output", "run"], "--output: run is a folder; expected a file"),
    ],
)
def test_bad_input_is_one_line(tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "config.json").write_text("{}")
    assert main(["report", *arguments]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line

"""The page in a real browser: it asks nothing of a network, and what a person does works."""

import itertools
import os

import numpy as np
import pytest

from jaxmoe.reporting.page import write_page
from tests.reporting.page.browser import Browser, executable
from tests.reporting.page.folders import make_run
from tests.reporting.page.study_page_test import make_page

pytest.importorskip("websocket", reason="websocket-client drives the browser")
if executable() is None and not os.environ.get("JAXMOE_BROWSER"):
    pytest.skip("no Chromium here: apt-get install chromium", allow_module_level=True)


@pytest.fixture(scope="module")
def browser():
    opened = Browser(executable())
    yield opened
    opened.close()


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """A video, an image, a segmentation run, and two runs side by side."""
    folder = tmp_path_factory.mktemp('a run\'s "pages" ü')
    video = make_run(folder / "video")
    image = make_run(folder / "image", frames=1, experts=1)
    dense = make_run(folder / "dense", frames=1, dense=True)
    pages = {run.name: write_page([run]) for run in (video, image, dense)}
    return pages | {"both": write_page([video, make_run(folder / "other", seed=1)])}


@pytest.fixture
def video(browser, pages):
    browser.open(pages["video"])
    return browser


@pytest.mark.parametrize("width", [1400, 390])
@pytest.mark.parametrize("name", ["video", "image", "dense", "both"])
def test_no_error_no_request_and_nothing_sticks_out(browser, pages, name, width):
    browser.open(pages[name], width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("document.querySelectorAll('img').length") > 0
    assert browser.run("[...document.images].every(i => i.complete && i.naturalWidth > 0)")
    assert browser.complaints == []
    assert browser.requests == [pages[name].resolve().as_uri()]


def test_side_by_side_the_worst_case_and_the_intervals_are_seen(browser, tmp_path):
    names = ("at_m_from_standard", "j_tlat_from_standard")
    path = write_page([make_run(tmp_path / name) for name in names])
    browser.open(path, 1400)
    tables = "[...document.querySelectorAll('#several .scroll')]"
    cut = f"{tables}.map(s => s.scrollWidth > s.clientWidth)"
    assert browser.run(cut) == [False, False]
    browser.open(path, 390)
    heads = "[...document.querySelectorAll('.overview th')]"
    worst = f"{heads}.find(h => h.textContent == 'worst case at 8/255 %')"
    right = "getBoundingClientRect().right"
    assert browser.run(f"{worst}.{right}") <= browser.run(f"{tables}[0].{right}")


@pytest.mark.parametrize("width", [1400, 390])
def test_the_page_of_a_study_sorts_its_figures_and_asks_nothing(browser, tmp_path, width):
    path = tmp_path / "study.html"
    path.write_text(make_page(), encoding="utf-8")
    browser.open(path, width)
    assert browser.run("document.documentElement.scrollWidth") <= width
    assert browser.run("window.hit === undefined")
    head = "document.querySelectorAll('table.study button.sort')[1]"
    cells = (
        "[...document.querySelectorAll('table.study tbody tr')].map(r => r.cells[1].textContent)"
    )
    browser.run(f"{head}.click()")
    assert browser.run(cells) == ["8.9 ± 2.1", "67.2 ± 3.9", "–"]
    browser.run(f"{head}.click()")
    assert browser.run(cells) == ["67.2 ± 3.9", "8.9 ± 2.1", "–"]
    assert browser.complaints == []
    assert browser.requests == [path.resolve().as_uri()]


def test_an_event_of_a_name_never_runs(browser, tmp_path):
    evil = ("<script>window.hit = 1</script>", "<img src=x onerror='window.hit = 1'>", "a&b", '"')
    browser.open(write_page([make_run(tmp_path / "run", classes=evil)]))
    assert browser.run("window.hit === undefined")
    assert browser.run(f"document.body.textContent.includes({evil[0]!r})")
    assert browser.complaints == []


def rows(browser, column):
    table = "#run0-attacks tbody:not(.pinned) tr:not(.group)"
    script = f"[...document.querySelectorAll('{table}')].map(r => r.cells[{column}].textContent)"
    return browser.run(script)


def test_heads_sort_and_a_third_press_restores_the_groups(video):
    before, head = rows(video, 2), "document.querySelectorAll('#run0-attacks button.sort')[2]"
    video.run(f"{head}.click()")
    assert rows(video, 2) == sorted(before, key=float)
    assert video.run(f"{head}.closest('th').getAttribute('aria-sort')") == "ascending"
    pinned = "document.querySelector('#run0-attacks tbody').rows[0].cells[0].textContent"
    assert video.run(pinned) == "worst-case"
    video.run(f"{head}.click()")
    assert rows(video, 2) == sorted(before, key=float, reverse=True)
    assert video.run("document.querySelectorAll('#run0-attacks tr.group').length") == 0
    video.run(f"{head}.click()")
    assert rows(video, 2) == before
    assert video.run("document.querySelectorAll('#run0-attacks tr.group').length") == 4


def choose(browser, name, value):
    browser.run(
        f"(() => {{ const s = document.querySelector('.filters select[name={name}]');"
        f"s.value = {value!r}; s.dispatchEvent(new Event('change', {{bubbles: true}})); }})()"
    )


@pytest.mark.parametrize("name", ["labels", "attack", "flipped", "broken"])
def test_examples_are_filtered(video, name):
    cards = "[...document.querySelectorAll('.card')]"
    first = video.run(f"{cards}[0].dataset.{name}")
    value = first.strip("|").split("|")[0] or "none"
    expected = video.run(
        f"{cards}.filter(c => {value!r} === 'none' ? c.dataset.{name} === '' : "
        f"('|' + c.dataset.{name} + '|').includes('|{value}|')).length"
    )
    choose(video, name, value)
    shown = video.run(f"{cards}.filter(c => c.checkVisibility()).length")
    assert shown == expected > 0
    assert video.run("document.querySelector('.filters output').textContent").startswith(
        f"{shown} of 4"
    )
    hidden = "[...document.querySelectorAll('tr[data-item]')].filter(r => r.hidden).length"
    if name in ("labels", "broken"):
        assert video.run(hidden) > 0


def test_a_clip_plays_and_pauses(video):
    card = "document.querySelector('.card')"
    picture = f"{card}.querySelector('canvas').toDataURL()"
    first = video.run(picture)
    assert first != video.run("document.createElement('canvas').toDataURL()")
    moved = (
        f"new Promise(done => {{ const s = {card}.querySelector('input[type=range]');"
        "const look = () => s.value !== '0' ? done(true) : setTimeout(look, 20); look(); })"
    )
    video.run(f"{card}.querySelector('[data-play]').click()")
    assert video.run(moved)
    assert video.run(picture) != first
    assert video.run(f"{card}.querySelector('[data-play]').textContent") == "Pause"
    video.run(f"{card}.querySelector('[data-play]').click()")
    assert video.run(f"{card}.querySelector('[data-play]').getAttribute('aria-pressed')") == "false"


def test_the_theme_changes_and_is_remembered(video, pages):
    ground = "getComputedStyle(document.body).backgroundColor"
    seen = {}
    for _ in range(3):
        video.run("document.querySelector('[data-theme-switch]').click()")
        seen[video.run("document.documentElement.dataset.theme ?? 'automatic'")] = video.run(ground)
    assert seen.keys() == {"light", "dark", "automatic"}
    assert seen["light"] != seen["dark"]
    video.call("Emulation.setEmulatedMedia", features=[_scheme("dark")])
    assert video.run(ground) == seen["dark"]
    video.call("Emulation.setEmulatedMedia", features=[_scheme("light")])
    assert video.run(ground) == seen["light"]


def _scheme(value):
    return {"name": "prefers-color-scheme", "value": value}


def test_sections_fold_by_keyboard_and_all_at_once(video):
    section = "document.querySelector('#run0-curves')"
    video.run(f"{section}.querySelector('summary').focus()")
    for kind in ("keyDown", "keyUp"):
        key = {"key": "Enter", "code": "Enter", "windowsVirtualKeyCode": 13, "text": "\r"}
        video.call("Input.dispatchKeyEvent", type=kind, **key)
    assert video.run(f"{section}.open") is False
    video.run("document.querySelector('[data-fold]').click()")
    assert video.run("[...document.querySelectorAll('details.section')].some(d => d.open)") is False
    video.run("location.hash = '#run0-routes'")
    opened = "document.querySelector('#run0-routes').open"
    script = f"new Promise(d => {{ const l = () => {opened} ? d(true) : setTimeout(l, 20); l(); }})"
    assert video.run(script)


def test_a_name_with_spaces_is_found_and_a_lone_percent_leads_nowhere(browser, tmp_path):
    names = ("a  wide   name", " one ", "b")
    browser.open(write_page([make_run(tmp_path / "run", classes=names)]))
    rows = "[...document.querySelectorAll('tr[data-item]')]"
    options = "[...document.querySelectorAll('.filters select[name=labels] option')]"
    numbers = dict(browser.run(f"{options}.map(o => [o.textContent, o.value])"))
    for name in names:
        choose(browser, "labels", numbers[name])
        shown = browser.run(
            f"{rows}.filter(r => !r.hidden).map(r => r.querySelector('td').textContent)"
        )
        assert set(shown) == {name}
    browser.run("location.hash = '#%'")
    browser.run("new Promise(done => setTimeout(done, 50))")
    assert browser.complaints == []


def test_images_with_labels_of_pixels_are_found_by_a_class_that_they_have(browser, tmp_path):
    folder = make_run(tmp_path / "run", dense=True, frames=1, classes=("road", "sky", "a|b"))
    with np.load(folder / "examples.npz") as file:
        arrays = dict(file)
    arrays["label"][:, :] = 0
    arrays["label"][::2, 0] = 1
    arrays["label"][::2, 1] = -1  # void
    arrays["label"][3, 0] = 2
    np.savez(folder / "examples.npz", **arrays)
    browser.open(write_page([folder]))
    rows = "[...document.querySelectorAll('tr[data-item]')]"
    for number, places in (("0", slice(None)), ("1", slice(0, None, 2)), ("2", slice(3, 4))):
        choose(browser, "labels", number)
        shown = browser.run(f"{rows}.filter(r => !r.hidden).map(r => r.cells[0].textContent)")
        assert shown == [str(each) for each in arrays["index"][places]]
    options = "[...document.querySelectorAll('.filters select[name=labels] option')]"
    assert browser.run(f"{options}.map(o => o.textContent)") == ["all", "a|b", "road", "sky"]


def test_a_chosen_attack_shows_its_panel_alone(video):
    choice = "document.querySelector('#run0-routes-choice')"
    video.run(f"{choice}.value = '2'; {choice}.dispatchEvent(new Event('change'))")
    shown = (
        "[...document.querySelectorAll('#run0-routes-panels .panel')]"
        ".filter(p => p.checkVisibility()).map(p => p.dataset.panel)"
    )
    assert video.run(shown) == ["2"]


def test_all_is_open_on_paper(video):
    video.run("dispatchEvent(new Event('beforeprint'))")
    assert video.run("document.querySelectorAll('details:not([open])').length") == 0
    video.run("dispatchEvent(new Event('afterprint'))")
    assert video.run("document.querySelectorAll('details:not([open])').length") > 0


def test_the_command_is_copied_or_selected(video):
    button = "document.querySelector('#run0-provenance [data-copy]')"
    assert video.run(f"{button}.dataset.copy").startswith("jaxmoe evaluate ")
    video.run(f"{button}.click()")
    told = f"new Promise(d => {{ const l = () => {button}.textContent !== 'Copy' ? "
    told += f"d({button}.textContent) : setTimeout(l, 20); l(); }})"
    assert video.run(told) in ("Copied", "Selected")


def test_who_reads_by_ear_has_heads_names_and_tables(video):
    assert video.run("document.querySelectorAll('h1').length") == 1
    levels = video.run(
        "[...document.querySelectorAll('h1, h2, h3, h4')].map(h => Number(h.tagName[1]))"
    )
    assert all(after <= before + 1 for before, after in itertools.pairwise(levels))
    unnamed = "[...document.querySelectorAll('svg[role=img], canvas')].filter(s => !s.ariaLabel)"
    assert video.run(f"{unnamed}.length") == 0
    assert video.run("[...document.images].filter(i => !i.alt).length") == 0
    assert video.run("[...document.querySelectorAll('table')].every(t => t.tHead)")
    unlabelled = "[...document.querySelectorAll('select, input')]"
    assert video.run(f"{unlabelled}.filter(s => !s.labels.length && !s.ariaLabel).length") == 0

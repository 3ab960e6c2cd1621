"""Examples on the page: frames that stay together, and what each is found by."""

import numpy as np

from jaxmoe.reporting.page import gather
from jaxmoe.reporting.page.arrays import WRONG_WHEN_CLEAN, Examples, smallest_breaking
from jaxmoe.reporting.page.sections.gallery import gallery
from tests.reporting.page.folders import make_run


def test_the_tracks_of_a_card_have_the_same_frames(tmp_path):
    run = gather(make_run(tmp_path / "run", frames=20, size=(40, 30), shown=3))
    clean = np.zeros_like(run.shown.clean)  # which would fit as it is
    run = run._replace(shown=run.shown._replace(clean=clean))
    for budget, said in ((10_000_000, "20 × 40 × 30"), (4_000, "20 × 40 × 30, shown ")):
        for card in gallery(run, budget=budget).cards:
            places = {track.strip.places for track in card.tracks}
            sizes = {(track.strip.height, track.strip.width) for track in card.tracks}
            assert len(places) == len(sizes) == 1
            assert card.note.startswith(said)
    assert card.note == "20 × 40 × 30, shown 4 of 20 frames at 32 × 24"


def test_maps_of_a_card_have_the_same_size(tmp_path):
    run = gather(make_run(tmp_path / "run", frames=1, dense=True, size=(120, 90), shown=2))
    maps = run.shown._replace(label_map=np.zeros_like(run.shown.label_map))
    for card in gallery(run._replace(shown=maps), budget=20_000).cards:
        assert len({(track.strip.height, track.strip.width) for track in card.maps}) == 1
        assert card.maps[0].strip.height < 120


def examples(correct, epsilons):
    lines = (("clean", 0.0), *(("pgd", epsilon) for epsilon in epsilons))
    correct = np.array(correct, np.float32)
    return Examples(np.arange(correct.shape[1]), np.zeros(correct.shape[1], int), lines, correct)


def test_an_attack_of_no_size_that_breaks_is_not_wrong_when_clean():
    least, by = smallest_breaking(examples([[1, 0, 1], [0, 0, 1], [0, 1, 0]], (0.0, 0.5)))
    assert least.tolist() == [0.0, WRONG_WHEN_CLEAN, 0.5]
    assert by == [["pgd"], [], ["pgd"]]


def test_what_was_wrong_when_clean_is_not_found_under_none_of_the_attacks(tmp_path):
    run = gather(make_run(tmp_path / "run", n=12, attacks=("pgd",)))
    right = np.ones_like(run.examples.correct)
    right[:, 0], right[1:, 1] = 0, 0
    found = gallery(run._replace(examples=run.examples._replace(correct=right)))
    by = [row.filter.broken_by for row in found.rows]
    assert by[:3] == ["|clean|", "|pgd|", ""]
    assert [row.least for row in found.rows[:3]] == ["wrong when clean", "4/255", "never"]


def test_a_card_says_whether_an_attack_broke_what_was_right(tmp_path):
    run = gather(make_run(tmp_path / "run", n=12, shown=3))
    place, line = int(run.shown.position[0]), int(run.shown.line[0])
    for before, after, outcome in ((1, 0, "broken"), (1, 1, "held"), (0, 0, "before")):
        right = np.ones_like(run.examples.correct)
        right[:, place], right[line, place] = before, after
        found = gallery(run._replace(examples=run.examples._replace(correct=right)))
        assert found.cards[0].outcome == outcome

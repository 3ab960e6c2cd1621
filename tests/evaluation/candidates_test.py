"""Who is shown whole and why, against a rewrite that holds everything."""

import gc
import weakref

import numpy as np
import pytest

from jaxmoe.evaluation.engine.candidates import (
    FEWEST,
    HELD_BELOW,
    MOST,
    Again,
    Candidates,
    Line,
    Pair,
)

N, SHAPE = 40, (2, 2, 1)
EPSILONS = (0.1, 0.2, 0.1, 0.2)  # of lines 1 to 4


def pair(value=0.0):
    return Pair(np.zeros((1, *SHAPE), np.uint8), np.full((1, *SHAPE), value, np.float16))


def made(seed=0, n=N, shown=12, shape=SHAPE):
    """Candidates, and what the lines find: right [R, n] and confidence [R, n]."""
    draw = np.random.default_rng(seed)
    clean = (draw.random(n) < 0.9).astype(float)
    right = (draw.random((len(EPSILONS), n)) < 0.8).astype(float)
    sure = draw.random((len(EPSILONS), n)).astype(np.float32)
    return Candidates(np.zeros(n, int), clean, shape, shown, seed), clean, right, sure


def offer(candidates, right, sure, size=7):
    """Offers all lines, batch by batch; a clip's pixels say which line and example it is."""
    for number, epsilon in enumerate(EPSILONS, 1):
        line = Line(candidates, number, epsilon)
        for start in range(0, right.shape[1], size):
            places = np.arange(start, min(start + size, right.shape[1]))
            clips = {place: pair(100 * number + place) for place in places.tolist()}
            line.offer(places, right[number - 1, places], sure[number - 1, places], clips)


@pytest.mark.parametrize("seed", range(4))
def test_reasons_lines_and_clips_are_those_of_a_plain_search(seed):
    candidates, clean, right, sure = made(seed)
    offer(candidates, right, sure)
    chosen = candidates.choose()
    assert len({one.place for one in chosen}) == len(chosen) == 12
    broken = (clean > 0) & (right == 0)  # [R, N]
    epsilons = np.array(EPSILONS)

    def smallest(place):
        return min((epsilons[r], r + 1) for r in np.flatnonzero(broken[:, place]))

    for one in chosen:
        assert one.pair().adversarial.flat[0] == 100 * one.line + one.place
    by_reason = {why: [c for c in chosen if c.why == why] for why in {c.why for c in chosen}}
    assert {len(each) for each in by_reason.values()} == {3}
    least = min(smallest(place)[0] for place in np.flatnonzero(broken.any(0)))
    for one in by_reason["smallest epsilon"]:
        assert (epsilons[one.line - 1], one.line) == smallest(one.place)
        assert epsilons[one.line - 1] == least
    taken = {one.place for one in by_reason["smallest epsilon"]}
    wrong = np.where(broken, sure, -1.0)
    order = [p for p in np.argsort(-wrong.max(0), kind="stable").tolist() if p not in taken]
    assert [one.place for one in by_reason["confident failure"]] == order[:3]
    for one in by_reason["confident failure"]:
        assert one.line == 1 + np.argmax(wrong[:, one.place])
    for one in by_reason["survivor"]:
        assert clean[one.place] > 0
        assert not broken[:, one.place].any()
    for one in by_reason["survivor"] + by_reason["random"]:
        if broken[:, one.place].any():
            assert one.line == smallest(one.place)[1]
            continue
        largest = np.flatnonzero(epsilons == 0.2)
        left = [(right[r, one.place], sure[r, one.place], r + 1) for r in largest]
        assert one.line == min(left)[2]


def test_another_seed_draws_others_and_the_same_seed_the_same():
    def drawn(seed):
        candidates, _, right, sure = made(seed=0)
        candidates = Candidates(np.zeros(N, int), np.ones(N), SHAPE, 12, seed)
        offer(candidates, right, sure)
        return [(one.place, one.why) for one in candidates.choose()]

    assert drawn(0) == drawn(0)
    assert drawn(0) != drawn(1)


def test_where_labels_are_of_pixels_less_than_half_of_what_was_right_is_broken():
    label = np.zeros((4, 2, 2), int)
    candidates = Candidates(label, np.array([0.8, 0.8, 0.5, 0.0]), SHAPE, 12, 0)
    unknown, places = np.full(4, np.nan), np.arange(4)
    for number, right in ((1, [0.41, 0.39, 0.5, 0.0]), (2, [0.7, 0.1, 0.4, 0.0])):
        clips = {place: pair(number) for place in range(4)}
        line = Line(candidates, number, 0.1)
        line.offer(places, np.array(right), unknown, clips)
    found = {one.place: (one.why, one.line) for one in candidates.choose()}
    # A survivor has the line that left the least; what was broken has the first.
    survivors = {0: ("survivor", 1), 2: ("survivor", 2)}
    assert found == survivors | {1: ("smallest epsilon", 1), 3: ("random", 1)}


def test_a_clip_that_was_not_at_hand_is_made_once_for_all_of_its_batch_and_only_if_shown():
    candidates = Candidates(np.zeros(3, int), np.ones(3), SHAPE, 2, 0)
    calls = []

    def make():
        calls.append(1)
        return {place: pair(place) for place in range(3)}

    one, places = np.ones(3), np.arange(3)
    Line(candidates, 1, 0.2).offer(places, one, one / 2, Again(make))
    Line(candidates, 2, 0.1).offer(places, one, one / 2, Again(lambda: pytest.fail("not shown")))
    chosen = candidates.choose()
    assert calls == []
    assert [one.pair().adversarial.flat[0] for one in chosen] == [one.place for one in chosen]
    assert (len(chosen), len(calls)) == (2, 1)


def test_two_clips_of_a_candidate_are_held_at_most():
    candidates, _, right, sure = made(seed=1)
    made_of = []

    class Watched(dict):
        def __getitem__(self, place):
            one = pair(place)
            made_of.append(weakref.ref(one.adversarial))
            return one

    for number, epsilon in enumerate(EPSILONS * 5, 1):
        row = (number - 1) % 4
        Line(candidates, number, epsilon).offer(np.arange(N), right[row], sure[row], Watched())
    gc.collect()
    assert len(made_of) == 20 * N
    assert sum(ref() is not None for ref in made_of) <= 2 * N


@pytest.mark.parametrize(
    ("shape", "count"),
    [((32, 32, 3), MOST), ((16, 112, 112, 3), 18), ((64, 512, 512, 3), FEWEST), ((48,), 0)],
)
def test_candidates_are_few_where_clips_are_large(shape, count):
    candidates = made(n=1000, shape=shape)[0]
    assert len(candidates.places) == count
    size = np.prod(shape)
    assert len(candidates.places) * 6 * size <= max(HELD_BELOW, FEWEST * 6 * size)
    assert len(made(n=3)[0].places) == 3
    assert len(made(shown=0)[0].places) == 0

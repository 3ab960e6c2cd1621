"""What stands is read as seldom as memory allows, and every clip once in an attempt."""

import numpy as np
import planted
import pytest

from jaxmoe.evaluation.engine.standing import StandingClips

N = 11
CLIPS = np.arange(N, dtype=np.uint8).reshape(N, 1)


class Pass:
    """A pass that counts what is read of it; `at` is there on request."""

    def __init__(self, batch_size, by_position):
        self.batches = [*planted.batches(CLIPS, np.arange(N), batch_size)()]
        self.read = []  # positions
        if by_position:
            self.at = lambda positions: map(self.one, positions)

    def one(self, position):
        self.read.append(position)
        return self.batches[position]

    def __iter__(self):
        return map(self.one, range(len(self.batches)))

    def standing(self, held_below, known=True):
        indices = [batch["index"] for batch in self.batches]
        valid = [batch["valid"] for batch in self.batches]
        given = (indices, valid) if known else (None, None)
        return StandingClips(lambda: self, *given, held_below=held_below)


def stands(*places):
    return np.isin(np.arange(N), places).astype(float)


@pytest.mark.parametrize("held_below", [0, 1 << 20])
@pytest.mark.parametrize("by_position", [False, True])
@pytest.mark.parametrize("known", [False, True])
@pytest.mark.parametrize("batch_size", [4, 5, 16])
def test_batches_of_what_stands_have_few_sizes_and_every_clip_once(
    batch_size, known, by_position, held_below
):
    clips = Pass(batch_size, by_position).standing(held_below, known)
    for standing in (11, 7, 4, 1, 0, 11):  # the last is more than may be held
        correct = np.random.default_rng(standing).permutation(np.arange(N) < standing)
        seen, sizes = [], set()
        for places, size, read in clips.batches(correct.astype(float)):
            batch = read()
            valid = batch["valid"]
            sizes.add(len(valid))
            assert len(valid) == size
            assert batch["clip"].dtype == np.uint8
            np.testing.assert_array_equal(batch["clip"][valid][:, 0], places)
            np.testing.assert_array_equal(batch["label"][valid], places)
            np.testing.assert_array_equal(batch["index"][valid], places)
            seen += places.tolist()
        assert seen == np.flatnonzero(correct).tolist()
        assert sizes <= {batch_size, max(batch_size // 4, 1), max(batch_size // 16, 1)}
        assert len(sizes) <= 2


def test_a_few_clips_are_not_looked_at_as_many():
    def sizes(standing, batch=128):
        batches = Pass(batch, True).standing(1 << 20).batches(stands(*range(standing)))
        return [size for _, size, _ in batches]

    assert [sizes(standing) for standing in (1, 2, 3, 8, 9)] == [[2], [2], [8], [8], [8, 8]]
    assert sizes(11, batch=16) == [16]  # half of it, and no more than a CPU takes well at once


def test_a_few_looks_are_not_worth_a_program_for_a_rest():
    clips = Pass(4, True).standing(1 << 20)
    every = np.ones(N)
    assert [size for _, size, _ in clips.batches(every[:9], 4, looks=900)] == [4, 4, 1]
    assert [size for _, size, _ in clips.batches(every[:9], 4, looks=100)] == [4, 4, 4]


def test_an_attack_that_begins_with_few_has_a_batch_of_about_as_many(monkeypatch):
    clips = Pass(128, True).standing(1 << 20)
    assert clips.begin("pgd", 95) == 32
    # Few sizes, so that a run whose model leaves 11 has the program of one that leaves 12.
    assert clips.begin("pgd", 11) == 12
    assert [size for _, size, _ in clips.batches(stands(*range(11)), 12)] == [12]
    # While fewer and fewer stand, little more is compiled.
    assert [size for _, size, _ in clips.batches(stands(*range(7)), 12)] == [12]
    assert [size for _, size, _ in clips.batches(stands(*range(2)), 12)] == [3]
    # What is there serves where half of it is full: at another ε, or after another suite.
    assert clips.begin("pgd", 6) == 12
    assert clips.begin("pgd", 5) == 6
    assert clips.begin("square", 6) == 6
    again = StandingClips(lambda: Pass(128, True), compiled={"pgd": {8}})
    assert [again.begin("pgd", count) for count in (5, 3)] == [8, 3]
    monkeypatch.setattr("jax.default_backend", lambda: "gpu")
    assert Pass(128, True).standing(1 << 20).begin("pgd", 11) == 128


def test_all_runs_begin_with_one_of_a_few_sizes():
    found = {Pass(128, True).standing(1 << 20).begin("pgd", count) for count in range(1, 33)}
    assert found == {1, 2, 3, 4, 6, 8, 12, 16, 24, 32}
    # No batch is larger than that of an attack on all.
    assert {Pass(11, True).standing(1 << 20).begin("pgd", count) for count in (9, 10, 11)} == {11}


def run(clips, *places):
    for *_, read in clips.batches(stands(*places)):
        read()


def test_what_fits_the_memory_is_read_once():
    found = Pass(4, by_position=False)
    clips = found.standing(1 << 20)
    for places in ([0, 1, 5, 9], [0, 9], [5]):
        run(clips, *places)
    assert found.read == [0, 1, 2]


def test_beyond_it_only_batches_with_a_clip_that_stands_are_read():
    by_position, in_order = Pass(4, by_position=True), Pass(4, by_position=False)
    for found in (by_position, in_order):
        clips = found.standing(0)
        run(clips, 0, 9)
        run(clips, 5)
    assert by_position.read == [0, 2, 1]
    assert in_order.read == [0, 1, 2, 0, 1]  # as far as the last that stands


def test_what_stands_is_held_as_soon_as_it_is_little_enough():
    found = Pass(4, by_position=True)
    one = sum(values[:1].nbytes for values in found.batches[0].values())
    clips = found.standing(2 * one)
    run(clips, 0, 5, 9)
    run(clips, 0, 9)
    run(clips, 0, 9)
    run(clips, 9)
    assert found.read == [0, 1, 2, 0, 2]


def test_nothing_is_read_for_what_is_known_already():
    found = Pass(4, by_position=False)
    for *_, _ in found.standing(0).batches(stands(0, 9)):
        pass
    assert found.read == []


@pytest.mark.parametrize("held_below", [0, 1 << 20])
def test_a_pass_that_ends_early_or_has_other_clips_is_refused(held_below):
    found = Pass(4, by_position=False)
    clips = found.standing(held_below)
    found.batches.pop()
    with pytest.raises(ValueError, match="pass differs from the clean one"):
        run(clips, 0, 9)
    found.batches[0] = found.batches[1]
    with pytest.raises(ValueError, match="pass differs from the clean one at batch 0"):
        run(clips, 0, 5)

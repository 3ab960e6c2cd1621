"""How a suite runs: batches and seeds, what is compiled, and what is told and kept on the way."""

import dataclasses

import numpy as np
import planted
import pytest
from planted import FAR
from planted_suite import CLIPS, EPSILON, LABELS, SETTINGS, run, run_plain

from jaxmoe.evaluation import Programs

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")


def test_padding_counts_nowhere():
    clip, labels = (CLIPS[:4] / 255).astype(np.float32), LABELS[:4]

    def padded(padding):
        return run(planted.batches(clip, labels, batch_size=5, padding=padding), attacks=["fgsm"])

    whole, broken = padded(clip[2:3]), padded(np.full_like(clip[:1], np.nan))
    assert broken.row("clean").n == 4
    assert broken.row("worst-case", EPSILON).robust_accuracy == 3 / 4
    np.testing.assert_array_equal(broken.index, np.arange(4))
    times = {"seconds": 0.0, "compile_seconds": 0.0}
    for row, other in zip(whole.rows, broken.rows, strict=True):
        assert row._replace(**times) == other._replace(**times)


def test_results_depend_on_the_seed_and_not_on_the_batch_size():
    # Without steps an attack is its random start; many clips sit where a random start decides.
    clip = np.repeat(planted.clips((FAR, 128)), 24, axis=0)
    still = dataclasses.replace(SETTINGS, alpha=0.0, steps=1)
    programs = Programs(planted.plain)

    def correct(batch_size, seed):
        factory = planted.batches(clip, [0] * 24, batch_size)
        result = run_plain(
            factory=factory, epsilons=[16 / 255], settings=still, seed=seed, programs=programs
        )
        return result.correct["pgd", 16 / 255]

    np.testing.assert_array_equal(correct(24, 0), correct(7, 0))
    assert 0 < correct(24, 0).mean() < 1
    assert np.any(correct(24, 0) != correct(24, 1))


def test_an_evaluation_keeps_the_best_iterate_whatever_training_keeps():
    kept = [
        run_plain(attacks=["pgd"], settings=dataclasses.replace(SETTINGS, iterate=iterate))
        for iterate in ("last", None)
    ]
    times = {"seconds": 0.0, "compile_seconds": 0.0}
    last, best = ([row._replace(**times) for row in result.rows] for result in kept)
    assert last == best


def test_a_sweep_compiles_each_attack_once():
    programs = Programs(planted.MIXTURE)
    names = ["fgsm", "tlga-r"]
    epsilons = [k / 255 for k in (1, 2, 4, 8)]
    for lam in (0.0, 1e-4):
        settings = dataclasses.replace(SETTINGS, lam=lam, alpha=0.2 + lam)
        result = run(programs=programs, attacks=names, epsilons=epsilons, settings=settings)
    assert {name: result.compilations[name] for name in names} == dict.fromkeys(names, 1)
    assert set(programs.traces.values()) == {1}
    assert result.row("fgsm", 8 / 255).compile_seconds == 0


def test_every_row_is_kept_as_it_ends_and_all_before_the_checks_begin():
    told, kept = [], []

    def stop(done, total, what):
        told.append((done, total, what))
        if "unbounded" in what:
            raise KeyboardInterrupt

    options = {"probe_batches": 1, "factory": planted.batches(CLIPS, LABELS, batch_size=5)}
    with pytest.raises(KeyboardInterrupt):
        run_plain(attacks=["fgsm"], progress=stop, keep=kept.append, **options)
    names = [[row.attack for row in result.rows] for result in kept]
    assert names == [["clean"], ["clean", "fgsm"], ["clean", "fgsm", "worst-case"]]
    assert not any(result.checks for result in kept)
    assert all(result.model_checks for result in kept)
    np.testing.assert_array_equal(kept[-1].correct["fgsm", EPSILON], [1, 1, 0, 1, 0])
    assert [entry for entry in told if "gradients: " in entry[2]] == [
        (0, 2, "checks for masked gradients: random noise"),
        (1, 2, "checks for masked gradients: PGD at unbounded ε"),
    ]


def test_checks_are_left_out_on_request():
    assert run_plain(attacks=["fgsm"], checks=False, probe_batches=2).checks == ()
    assert run_plain(attacks=["fgsm"]).checks


def test_progress_ends_at_its_total():
    seen = []
    factory = planted.batches(np.concatenate([CLIPS, CLIPS]), 2 * LABELS, batch_size=5)
    run(factory, progress=lambda *state: seen.append(state))
    done = [state[0] for state in seen]
    assert done == sorted(done)
    assert set(done) == set(range(7))
    assert seen[-1] == (6, 6, "checks for masked gradients")

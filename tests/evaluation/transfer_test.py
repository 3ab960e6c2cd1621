"""A transfer matrix of planted models, every entry known.

u and v are the mean pixels of frames 0 and 1. One model looks at v, one at u, one at both.
"""

import dataclasses

import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR

from jaxmoe import attacks
from jaxmoe.attacks import AttackResult, AttackSettings
from jaxmoe.evaluation import (
    NonFiniteError,
    NonFiniteGradient,
    ThreatViolation,
    evaluate_suite,
    transfer_matrix,
)
from tests.night import at_night

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=6)
SCALE = jnp.float32(10.0)
# Near the boundary of u; of v; of both; of neither; wrong when clean; on the other side of both.
CLIPS = planted.clips((NEAR, FAR), (FAR, NEAR), (NEAR, NEAR), (FAR, FAR), (FAR, FAR), (20, 20))
LABELS = [0, 0, 0, 0, 1, 1]
FACTORY = planted.batches(CLIPS, LABELS)


def looks_at(frame):
    def model(scale, x):
        return planted.two_sides(scale * (planted.means(x)[:, frame] - 0.5))

    return model


first, second = looks_at(0), looks_at(1)
MODELS = {"first": (first, SCALE), "second": (second, SCALE)}


def run(sources=MODELS, targets=MODELS, factory=FACTORY, **options):
    base = {"attacks": ["fgsm"], "epsilons": [EPSILON], "settings": SETTINGS}
    return transfer_matrix(sources, targets, factory, **base | options)


@pytest.fixture(scope="module")
def result():
    return run(attacks=["fgsm", "pgd"], epsilons=[2 / 255, EPSILON], seed=3)


def test_every_entry_is_known(result):
    clean = [1, 1, 1, 1, 0, 1]
    np.testing.assert_array_equal(result.clean["first"], clean)
    np.testing.assert_array_equal(result.clean["second"], clean)
    for attack in ("fgsm", "pgd"):
        correct = {key[:2]: right for key, right in result.correct.items() if key[2] == attack}
        np.testing.assert_array_equal(correct["first", "first"], [0, 1, 0, 1, 0, 1])
        np.testing.assert_array_equal(correct["second", "second"], [1, 0, 0, 1, 0, 1])
        assert result.row("first", "first", attack, EPSILON).robust_accuracy == 3 / 6
    # FGSM of the one leaves the other's frame as it was.
    np.testing.assert_array_equal(result.correct["first", "second", "fgsm", EPSILON], clean)
    np.testing.assert_array_equal(result.correct["second", "first", "fgsm", EPSILON], clean)
    assert result.row("all others", "first", "fgsm", EPSILON).robust_accuracy == 5 / 6
    for row in result.rows:
        assert row.epsilon == EPSILON or row.robust_accuracy == row.clean_accuracy == 5 / 6
        assert (row.n, row.seed, row.norm) == (6, 3, "linf")
    np.testing.assert_array_equal(result.index, np.arange(6))


def test_examples_are_of_the_best_iterate_whatever_training_keeps():
    def waves(scale, x):
        # Waves, so that large steps overshoot and the last iterate is not the best.
        return planted.two_sides(jnp.sin(scale * jnp.sum(x, axis=(2, 3, 4))[:, 0]))

    model = {"waves": (waves, SCALE)}

    def correct(iterate):
        settings = AttackSettings(steps=3, alpha=2.0, iterate=iterate)
        found = run(model, model, factory=FACTORY, attacks=["pgd"], settings=settings)
        return found.rows

    assert correct("last") == correct("best")


def test_the_diagonal_is_what_a_suite_finds(result):
    options = {"attacks": ["pgd"], "epsilons": [EPSILON], "seed": 3, "probe_batches": 0}
    suite = evaluate_suite(first, SCALE, FACTORY, settings=SETTINGS, **options)
    for mine, theirs in (
        (result.correct["first", "first", "pgd", EPSILON], suite.correct["pgd", EPSILON]),
        (result.clean["first"], suite.correct["clean", 0.0]),
    ):
        np.testing.assert_array_equal(mine, theirs)


def test_all_others_is_the_and_of_the_sources_without_the_target():
    def both(scale, x):
        return first(scale, x) + second(scale, x)

    # The third clip is 1.5 grey levels from ½ in u and in v: 4 in either turn their sum.
    close = planted.clips((129, FAR), (FAR, 129), (129, 129), (FAR, FAR), (FAR, FAR), (20, 20))
    models = MODELS | {"both": (both, SCALE)}
    found = run(models, models, planted.batches(close, LABELS))

    def robust(source, target):
        return found.row(source, target, "fgsm", EPSILON).robust_accuracy

    assert [robust("all others", name) for name in models] == [3 / 6, 3 / 6, 4 / 6]
    assert [robust(name, name) for name in models] == [3 / 6, 3 / 6, 4 / 6]
    assert [robust("both", name) for name in models] == [3 / 6, 3 / 6, 4 / 6]
    others = found.correct["all others", "both", "fgsm", EPSILON]
    each = [found.correct[name, "both", "fgsm", EPSILON] for name in MODELS]
    np.testing.assert_array_equal(others, np.minimum(*each))


def test_targets_need_not_be_sources():
    found = run({"first": MODELS["first"]}, MODELS)
    sources = {(row.source, row.target) for row in found.rows}
    assert sources == {("first", "first"), ("first", "second"), ("all others", "second")}
    assert found.row("all others", "second", "fgsm", EPSILON).robust_accuracy == 5 / 6


def test_wrong_when_clean_is_not_robust_though_the_transferred_clip_is_right():
    # The source pushes v up; the clip's v is below ½ and its label, of the target, above.
    opposite = {"opposite": (second, -SCALE)}
    factory = planted.batches(planted.clips((FAR, 125)), [0])
    row = run(opposite, {"second": MODELS["second"]}, factory).row(
        "opposite", "second", "fgsm", EPSILON
    )
    assert (row.clean_accuracy, row.accuracy_under_attack, row.robust_accuracy) == (0, 1, 0)


def test_parts_of_a_mixture_are_attacked_on_the_source():
    # Frame 0 is the router's: PGD-R turns the route of clips 0 and 2, and so their class.
    mixture = {"mixture": (planted.MIXTURE, planted.PARAMS)}
    found = run(mixture, mixture | {"first": MODELS["first"]}, attacks=["pgd-r"])
    np.testing.assert_array_equal(
        found.correct["mixture", "first", "pgd-r", EPSILON], [0, 1, 0, 1, 0, 1]
    )
    with pytest.raises(ValueError, match="no such parts"):
        run(attacks=["pgd-r"])


def training(clip=CLIPS, label=LABELS):
    return dict.fromkeys(MODELS, planted.batches(clip, label))


def test_a_universal_perturbation_breaks_one_side_and_one_for_each_class_both():
    near = planted.clips((NEAR, FAR), (124, FAR), (FAR, FAR), (20, FAR))
    factory = planted.batches(near, [0, 1, 0, 1])
    names = ["universal", "universal-class"]
    # Two clips of three are of class 0: all get darker, which only class 0 minds.
    learnt = training(planted.clips((150, FAR), (150, FAR), (105, FAR)), [0, 0, 1])
    found = run(factory=factory, attacks=names, training_batches=learnt)

    def correct(target, name):
        return found.correct["first", target, name, EPSILON]

    np.testing.assert_array_equal(correct("first", "universal"), [0, 1, 1, 1])
    np.testing.assert_array_equal(correct("first", "universal-class"), [0, 0, 1, 1])
    np.testing.assert_array_equal(correct("second", "universal"), found.clean["second"])


def test_training_clips_need_no_numbers():
    unnumbered = [{k: v for k, v in b.items() if k != "index"} for b in training()["first"]()]
    options = {"attacks": ["universal"], "training_batches": training()}
    learnt = dict.fromkeys(MODELS, lambda: unnumbered)
    assert run(**options | {"training_batches": learnt}).rows == run(**options).rows


def test_test_clips_have_no_say_in_a_universal_perturbation(monkeypatch):
    from jaxmoe.evaluation.transfer import transfer

    made = []

    def remembered(*given, **options):
        made.append(np.asarray(fit_named(*given, **options)))
        return made[-1]

    fit_named = transfer.fit_named
    monkeypatch.setattr(transfer, "fit_named", remembered)
    source = {"first": MODELS["first"]}
    for clip, learnt in ((CLIPS, CLIPS), (CLIPS[::-1].copy(), CLIPS), (CLIPS, 255 - CLIPS)):
        factory = planted.batches(clip, LABELS)
        options = {"attacks": ["universal"], "training_batches": training(learnt)}
        run(source, source, factory, **options)
    np.testing.assert_array_equal(made[0], made[1])
    assert np.any(made[0] != made[2])


def test_a_clip_must_survive_every_restart(monkeypatch):
    """Restart 0 breaks clip 0, restart 1 clip 1."""

    def build(model, threat, settings):
        def attack(key, params, x, y):
            keys.append(key)
            breaks = jnp.arange(x.shape[0]) == len(keys) - 1
            darker = jnp.asarray(x).at[:, 1].add(-threat.epsilon)
            x_adv = jnp.where(breaks[:, None, None, None, None], darker, x)
            zero = jnp.zeros(x.shape[0])
            return AttackResult(x_adv, zero, zero[None], jnp.int32(1), zero, zero == 0)

        return attack

    keys = []
    monkeypatch.setitem(attacks.ATTACKS, "told", attacks.NamedAttack("told", build, "model"))
    monkeypatch.setattr(
        "jaxmoe.evaluation.engine.programs.Programs.timed",
        lambda self, name, f, *given, examples=(): (f(*given), 0.0),
    )
    factory = planted.batches(planted.clips((FAR, NEAR), (FAR, NEAR), (FAR, NEAR)), [0, 0, 0])
    settings = dataclasses.replace(SETTINGS, restarts=2)
    model = {"second": MODELS["second"]}
    found = run(model, model, factory, attacks=["told"], settings=settings)
    assert len(keys) == 2
    np.testing.assert_array_equal(found.correct["second", "second", "told", EPSILON], [0, 0, 1])


def test_a_matrix_that_was_stopped_goes_on_to_the_same_rows(tmp_path, monkeypatch):
    from jaxmoe.evaluation.transfer import transfer

    fits, fit_named = [], transfer.fit_named
    monkeypatch.setattr(
        transfer, "fit_named", lambda *given, **o: fits.append(given[0]) or fit_named(*given, **o)
    )
    options = {
        "attacks": ["fgsm", "universal"],
        "training_batches": training(),
        "factory": planted.batches(CLIPS, LABELS, batch_size=2),
    }
    # 3 batches when clean, then 3 for each attack and source: this stops in the last one.
    with pytest.raises(KeyboardInterrupt):
        run(journal=tmp_path / "j", progress=stop_after(14), **options)
    lines = []
    assert len(fits) == 2  # one for each source
    found = run(journal=tmp_path / "j", say=lines.append, **options)
    # Of 11 batches on both targets, and two perturbations.
    assert lines == [f"going on from {tmp_path / 'j'}: 24 results are there"]
    assert len(fits) == 2
    assert found.rows == run(**options).rows
    run(journal=tmp_path / "j", say=lines.append, **options | {"seed": 1})
    assert len(lines) == 1  # beside it; nothing is put aside
    assert [*tmp_path.iterdir()] == [tmp_path / "j"]


@pytest.mark.parametrize("change", ["training", "targets"])
def test_a_matrix_goes_on_with_what_still_holds(tmp_path, change):
    options = {"attacks": ["universal"], "training_batches": training()}
    before = run(journal=tmp_path / "j", **options)
    if change == "training":
        options["training_batches"] = training(255 - CLIPS)
    else:
        options["targets"] = {"second": MODELS["second"]}
    found = run(journal=tmp_path / "j", **options)
    assert found.rows == run(**options).rows != before.rows


def stop_after(calls):
    def progress(done, total, what):
        if done == calls:
            raise KeyboardInterrupt

    return progress


@pytest.mark.parametrize("attack", [at_night("pgd-t"), "apgd-t", at_night("fab-t")])
def test_a_clip_must_survive_every_target(attack):
    """The source has a wrong class for each side of v; the target minds the less likely one."""

    def three(scale, x):
        v = scale * (planted.means(x)[:, 1] - 0.5)
        return jnp.stack([0.5 + 0 * v, v + 0.1, -v], axis=-1)

    # v is ½ + 0.004: of class 0, with class 1 next; class 2 is as near as 8 grey levels.
    factory = planted.batches(planted.clips((FAR, 129)), [0])
    options = {"attacks": [attack], "epsilons": [32 / 255], "factory": factory}
    options["settings"] = AttackSettings(steps=10, targets=2, alpha=0.5)
    found = run({"three": (three, SCALE)}, {"first": (darker, SCALE)}, **options)
    np.testing.assert_array_equal(found.correct["three", "first", attack, 32 / 255], [0])


def darker(scale, x):
    """Minds only that v falls."""
    v = planted.means(x)[:, 1]
    return jnp.stack([v - 0.45, jnp.zeros_like(v), jnp.zeros_like(v)], axis=-1) * scale


def test_padding_counts_nowhere():
    clip = (CLIPS / 255).astype(np.float32)
    broken = np.full_like(clip[:1], np.nan)
    names = {"attacks": ["fgsm", "universal"], "training_batches": training()}
    found = run(factory=planted.batches(clip, LABELS, batch_size=4, padding=broken), **names)
    whole = run(factory=planted.batches(clip, LABELS, batch_size=6), **names)
    assert found.rows == whole.rows


def test_what_is_not_finite_is_an_error():
    def dark(scale, x):
        # √max(v − ½, 0) has the value 0 and the gradient 0 · ∞ below ½.
        return second(scale, x) + jnp.sqrt(jnp.maximum(planted.means(x)[:, 1:] - 0.5, 0))

    source = {"dark": (dark, SCALE)}
    with pytest.raises(NonFiniteGradient, match=r"fgsm of dark on second .*index \[5\]"):
        run(source, {"second": MODELS["second"]})
    learnt = {"dark": planted.batches(CLIPS, LABELS)}
    with pytest.raises(NonFiniteGradient, match="universal at"):
        run(source, MODELS, attacks=["universal"], training_batches=learnt)
    with pytest.raises(NonFiniteError, match="clean on broken"):
        run(targets={"broken": (second, jnp.float32(jnp.nan))})


def test_what_an_attack_returns_is_checked(monkeypatch):
    def build(model, threat, settings):
        def attack(key, params, x, y):
            zero = jnp.zeros(x.shape[0])
            x_adv = x - 1.01 * threat.epsilon
            return AttackResult(x_adv, zero, zero[None], jnp.int32(1), zero, zero == 0)

        return attack

    monkeypatch.setitem(attacks.ATTACKS, "liar", attacks.NamedAttack("liar", build, "model"))
    with pytest.raises(ThreatViolation, match="liar of first on first"):
        run(attacks=["liar"])


def test_models_that_are_the_same_compile_once():
    traces = []

    def counted(scale, x):
        traces.append(x.shape)
        return second(scale, x)

    models = {name: (counted, scale) for name, scale in (("a", SCALE), ("b", 2 * SCALE))}
    run(models, models, epsilons=[2 / 255, EPSILON])
    several = len(traces)
    traces.clear()
    run(dict(list(models.items())[:1]), dict(list(models.items())[:1]))
    assert several == len(traces)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"attacks": []}, "attacks: none"),
        ({"epsilons": []}, "epsilons: none"),
        ({"sources": {}}, "sources: none"),
        ({"targets": {}}, "targets: none"),
        ({"epsilons": [-0.1]}, "threat.epsilon: -0.1"),
        ({"attacks": ["pdg"]}, "did you mean pgd"),
        ({"attacks": ["universal"]}, "training_batches: none for 'first'"),
        ({"targets": {"first": (second, SCALE)}}, "'first' is another model"),
        ({"sources": {"all others": (second, SCALE)}}, "rename the model"),
    ],
)
def test_impossible_requests_are_one_line(options, said):
    with pytest.raises(ValueError, match=said):
        run(**options)


def test_a_factory_that_changes_its_mind_is_refused():
    passes = iter(range(9))

    def factory():
        shift = next(passes)
        for batch in FACTORY():
            yield batch | {"index": batch["index"] + shift}

    with pytest.raises(ValueError, match="same batches every time"):
        run(factory=factory)


def test_progress_ends_at_its_total():
    seen = []
    factory = planted.batches(CLIPS, LABELS, batch_size=3)
    run(factory=factory, progress=lambda *state: seen.append(state))
    assert seen[-1][:2] == (6, 6)
    # Before the clean pass ends nobody knows the total.
    assert all(done <= total for done, total, _ in seen if total)

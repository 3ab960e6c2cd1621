"""Suites on mixtures whose every answer is known."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR

from jaxmoe import attacks
from jaxmoe.attacks import ATTACKS, AttackResult, AttackSettings, NamedAttack
from jaxmoe.evaluation import (
    NonFiniteError,
    NonFiniteGradient,
    Programs,
    ThreatViolation,
    evaluate_suite,
)

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=6)
# Route breakable twice, class breakable, neither, wrong when clean.
CLIPS = planted.clips((NEAR, FAR), (NEAR, FAR), (FAR, NEAR), (FAR, FAR), (FAR, FAR))
LABELS = [0, 0, 0, 0, 1]
FACTORY = planted.batches(CLIPS, LABELS)


# Compilation is what takes the time here: of plain classifiers where no routing is needed, and
# without the checks of masked gradients, which have their own tests.
BASE = {"attacks": ["pgd", "pgd-r"], "epsilons": [EPSILON], "settings": SETTINGS}
PLAIN_PARAMS = jnp.float32(10.0)


def run(factory=FACTORY, params=planted.PARAMS, **options):
    options = BASE | {"programs": planted.PROGRAMS, "probe_batches": 0} | options
    return evaluate_suite(planted.MIXTURE, params, factory, **options)


def run_plain(model=planted.plain, factory=FACTORY, **options):
    options = BASE | {"attacks": ["pgd"], "probe_batches": 0} | options
    return evaluate_suite(model, PLAIN_PARAMS, factory, **options)


def test_worst_case_is_the_and_of_every_clip_not_the_smallest_mean():
    result = run()
    assert result.row("clean").robust_accuracy == 4 / 5
    assert result.row("pgd", EPSILON).robust_accuracy == 3 / 5
    assert result.row("pgd-r", EPSILON).robust_accuracy == 2 / 5
    assert result.row("worst-case", EPSILON).robust_accuracy == 1 / 5
    np.testing.assert_array_equal(result.correct["pgd-r", EPSILON], [0, 0, 1, 1, 0])


def test_a_clip_wrong_when_clean_is_not_robust_even_if_the_attack_corrects_it():
    clip = planted.clips((FAR, NEAR))
    # A metric that counts the wrong class: the clean clip fails it, and the attack corrects that.
    result = run_plain(
        factory=planted.batches(clip, [0]),
        attacks=["fgsm"],
        metric=lambda logits, labels: (jnp.argmax(logits, -1) == 1 - labels).astype(jnp.float32),
    )
    row = result.row("fgsm", EPSILON)
    assert row.accuracy_under_attack == 1
    assert row.robust_accuracy == 0


def test_an_attack_reaches_as_far_as_epsilon_and_no_further():
    result = run(epsilons=[2 / 255, 3 / 255, 4 / 255], attacks=["pgd"])
    assert [result.row("pgd", k / 255).robust_accuracy for k in (2, 3, 4)] == [0.8, 0.8, 0.6]


def test_routing_figures_are_those_of_the_planted_routes():
    row = run().row("pgd-r", EPSILON)
    assert row.flip_rate == 2 / 5
    assert row.routing_iou == pytest.approx(3 / 5)
    assert row.load_clean == [1, 0]
    np.testing.assert_allclose(row.load_adversarial, [3 / 5, 2 / 5])


def test_lipschitz_figures_are_those_of_the_planted_slopes():
    # FGSM moves v alone by ε: logits change by 10 ε, the clip's mean square is half of ε².
    row = run(attacks=["fgsm"]).row("fgsm", EPSILON)
    assert row.lipschitz_model_mean == pytest.approx(2 * 10**2, rel=1e-3)
    np.testing.assert_allclose(row.lipschitz_experts_max, [200, 200], rtol=1e-3)
    assert row.lipschitz_router_logits_max == pytest.approx(0, abs=1e-6)
    assert row.lipschitz_router_weights_max == pytest.approx(0, abs=1e-6)


def test_costs_and_settings_stand_beside_the_accuracy():
    settings = dataclasses.replace(SETTINGS, restarts=2, steps=5)
    result = run(attacks=["fgsm", "PGD_R"], settings=settings, seed=7)
    fgsm, router, worst = (result.row(name, EPSILON) for name in ("fgsm", "pgd-r", "worst-case"))
    assert (fgsm.steps, fgsm.restarts, fgsm.gradient_evaluations) == (1, 1, 1)
    assert (router.steps, router.restarts, router.gradient_evaluations) == (5, 2, 10)
    assert len(router.loss_trace) == 2 * 6
    assert worst.gradient_evaluations == 11
    assert {row.seed for row in result.rows} == {7}
    assert {row.n for row in result.rows} == {5}
    assert router.compile_seconds > 0 < router.seconds


def test_a_clip_must_survive_every_restart_whatever_its_loss(monkeypatch):
    """Restart 0 breaks clip 0 with a small loss, restart 1 clip 1; the others have great losses."""
    breaks = jnp.array([[True, False], [False, True]])

    def build(name, model, threat, settings):
        def attack(key, params, x, y):
            number = len(calls)
            calls.append(key)
            darker = jnp.asarray(x).at[:, 1].add(-4 / 255)
            x_adv = jnp.where(breaks[number].reshape(2, 1, 1, 1, 1), darker, x)
            loss = jnp.where(breaks[number], 0.1, 9.0)
            return AttackResult(
                x_adv, loss, jnp.stack([loss, loss]), jnp.int32(1), jnp.zeros(2), jnp.ones(2, bool)
            )

        return attack

    calls = []
    factory = planted.batches(planted.clips((FAR, NEAR), (FAR, NEAR)), [0, 0])
    monkeypatch.setattr("jaxmoe.evaluation.engine.programs.build_attack", build)
    result = run_plain(
        programs=_Uncompiled(planted.plain),
        factory=factory,
        settings=dataclasses.replace(SETTINGS, steps=1, restarts=2),
    )
    row = result.row("pgd", EPSILON)
    assert len(calls) == 2
    assert (calls[0] != calls[1]).all()
    assert row.robust_accuracy == 0
    np.testing.assert_allclose(row.loss_trace, [4.55] * 4)


class _Uncompiled(Programs):
    """Runs what it is given every time, so that an attack may count its calls."""

    def timed(self, name, program, *args):
        return program(*args), 0.0


@pytest.mark.parametrize(
    ("label", "said"),
    [
        (np.zeros((5, 1), np.int32), r"label: int32 of shape \[5, 1\] .* expected .* \[5\]"),
        (np.zeros(5), "label: float32 .* expected integers"),
        (np.full(5, -2), "label: -2 to -2 on a model of 2 classes; expected 0 to 1"),
        (np.full(5, 2), "label: 2 to 2 on a model of 2 classes; expected 0 to 1"),
    ],
)
def test_labels_of_no_class_are_refused(label, said):
    from jaxmoe.evaluation import Grid, sweep_grid, transfer_matrix

    def batches():
        (batch,) = planted.batches(CLIPS, LABELS)()
        yield batch | {"label": label}

    model = {"one": (planted.plain, jnp.float32(10.0))}
    for evaluate in (
        lambda: evaluate_suite(*model["one"], batches, attacks=[], epsilons=[0.1]),
        lambda: sweep_grid(*model["one"], batches, attacks=["fgsm"], grid=Grid((0.1,))),
        lambda: transfer_matrix(model, model, batches, attacks=["fgsm"], epsilons=[0.1]),
    ):
        with pytest.raises(ValueError, match=said):
            evaluate()


@pytest.mark.parametrize(
    ("output", "said"),
    [
        (lambda logits: logits[:, 0], r"float32\[5\] for inputs"),
        (lambda logits: logits[:1], r"float32\[1, 2\] for inputs"),
        (lambda logits: (logits, logits), "tuple for inputs"),
        (lambda logits: jnp.argmax(logits, axis=-1), r"int32\[5\] for inputs"),
    ],
)
def test_what_are_no_logits_is_refused(output, said):
    model = lambda scale, x: output(planted.plain(scale, x))  # noqa: E731
    with pytest.raises(ValueError, match=f"model: an output of {said}.*expected logits"):
        evaluate_suite(
            model,
            jnp.float32(10.0),
            planted.batches(CLIPS, LABELS),
            attacks=["fgsm"],
            epsilons=[0.1],
        )


def test_the_worst_case_at_an_epsilon_holds_that_of_the_smaller_ones(monkeypatch):
    """An attack that breaks clip 0 at the smaller ε alone, clip 1 at the larger."""

    def build(model, threat, settings):
        def attack(key, params, x, y):
            small = threat.epsilon < 0.15
            breaks = jnp.where(small, jnp.arange(len(x)) == 0, jnp.arange(len(x)) == 1)
            x_adv = jnp.where(breaks[:, None, None, None, None], x - threat.epsilon, x)
            zero = jnp.zeros(len(x))
            trace = jnp.zeros((2, len(x)))
            return AttackResult(x_adv, zero, trace, jnp.int32(1), zero, zero == 0)

        return attack

    monkeypatch.setitem(ATTACKS, "told", NamedAttack("told", build, "model"))
    found = evaluate_suite(
        planted.plain,
        jnp.float32(10.0),
        planted.batches(planted.clips(*[(140, 140)] * 3), [0] * 3),
        attacks=["told"],
        epsilons=[0.2, 0.1],
        probe_batches=0,
    )
    assert found.row("told", 0.2).robust_accuracy == pytest.approx(2 / 3)
    assert found.row("worst-case", 0.1).robust_accuracy == pytest.approx(2 / 3)
    assert found.row("worst-case", 0.2).robust_accuracy == pytest.approx(1 / 3)


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


def test_programs_of_another_model_are_refused():
    with pytest.raises(ValueError, match="another model"):
        run_plain(programs=planted.PROGRAMS)


def test_a_gradient_that_is_not_finite_is_an_error_that_names_its_clips():
    def broken_where_dark(scale, x):
        # √max(v − ½, 0) has the value 0 and the gradient 0 · ∞ below ½.
        return planted.plain(scale, x) + jnp.sqrt(jnp.maximum(planted.means(x)[:, 1:] - 0.5, 0))

    factory = planted.batches(planted.clips((FAR, FAR), (FAR, 20), (FAR, 30)), [0, 1, 1])
    with pytest.raises(NonFiniteGradient, match=r"fgsm at ε = 0\.0156863.*index \[1, 2\]"):
        run_plain(broken_where_dark, factory, attacks=["fgsm"])


def test_a_router_that_says_nan_is_an_error_and_not_a_robust_model():
    with pytest.raises(NonFiniteError, match="clean"):
        run(params=planted.PARAMS | {"router": jnp.float32(jnp.nan)})


def attack_that_returns(change, component="model"):
    def build(model, threat, settings):
        def attack(key, params, x, y):
            loss = jnp.ones(x.shape[0])
            x_adv, finite = change(x, threat.epsilon), jnp.isfinite(loss)
            return AttackResult(x_adv, loss, loss[None], jnp.int32(1), 0 * loss, finite)

        return attack

    return attacks.NamedAttack("liar", build, component)


@pytest.mark.parametrize(
    ("component", "isolated"), [("router", 3 / 5), ("experts", 1 / 5), ("model", None)]
)
def test_an_isolated_part_alone_sees_the_attack(monkeypatch, component, isolated):
    """Both frames go down: a NEAR route turns, to the expert that says the opposite of v."""
    levels = (NEAR, NEAR), (FAR, NEAR), (FAR, NEAR), (FAR, FAR), (NEAR, FAR)
    factory = planted.batches(planted.clips(*levels), [0, 0, 0, 0, 1])
    liar = attack_that_returns(lambda x, e: x - e, component)
    monkeypatch.setitem(attacks.ATTACKS, "liar", liar)
    row = run(factory, attacks=["liar"], programs=Programs(planted.MIXTURE)).row("liar", EPSILON)
    # The first turns twice, end to end; the last is wrong when clean.
    assert row.robust_accuracy == 2 / 5
    assert row.accuracy_under_attack == 3 / 5
    assert row.isolated_accuracy == isolated


@pytest.mark.parametrize(
    "change",
    [
        lambda x, e: x - 1.01 * e,
        lambda x, e: jnp.where(x > 0.8, 1 + e / 2, x),
        lambda x, e: x + jnp.nan,
    ],
    ids=["ball", "box", "nan"],
)
def test_what_an_attack_returns_is_checked(monkeypatch, change):
    monkeypatch.setitem(attacks.ATTACKS, "liar", attack_that_returns(change))
    clip = np.full_like(CLIPS, 254)
    with pytest.raises((ThreatViolation, NonFiniteError), match="liar"):
        run_plain(attacks=["liar"], factory=planted.batches(clip, LABELS))


def test_what_an_attack_believes_is_not_the_result(monkeypatch):
    monkeypatch.setitem(attacks.ATTACKS, "liar", attack_that_returns(lambda x, e: x))
    assert run_plain(attacks=["liar"]).row("liar", EPSILON).robust_accuracy == 4 / 5


def test_l2_is_measured_by_its_own_norm():
    # A frame has 64 pixels: v moves by ε / 8, and 3.5 / 255 · 8 is 0.110.
    factory = planted.batches(CLIPS[2:4], [0, 0])
    result = run_plain(attacks=["fgsm"], norm="l2", epsilons=[0.1, 0.12], factory=factory)
    assert result.row("fgsm", 0.1).robust_accuracy == 1
    assert result.row("fgsm", 0.12).robust_accuracy == 0.5


def test_a_plain_classifier_has_general_attacks_and_no_routing():
    row = run_plain(attacks=["fgsm"]).row("fgsm", EPSILON)
    assert row.robust_accuracy == 3 / 5
    assert row.lipschitz_model_mean > 0
    routing = ("flip_rate", "routing_iou", "load_clean", "lipschitz_experts_mean")
    for name in (*routing, "isolated_accuracy"):
        assert getattr(row, name) is None
    with pytest.raises(ValueError, match="no such parts"):
        run_plain(attacks=["pgd-r"])


def test_a_factory_that_changes_its_mind_is_refused():
    passes = iter(range(9))

    def factory():
        shift = next(passes)
        for batch in planted.batches(CLIPS, LABELS)():
            yield batch | {"index": batch["index"] + shift}

    with pytest.raises(ValueError, match="same batches every time"):
        run(factory, attacks=["pgd"])


def test_no_valid_clip_and_no_epsilon_are_refused():
    def nothing():
        for batch in planted.batches(CLIPS, LABELS)():
            yield batch | {"valid": np.zeros(5, bool)}

    with pytest.raises(ValueError, match="no valid clip"):
        run(factory=nothing)
    with pytest.raises(ValueError, match="at least one ε"):
        run(epsilons=[])
    with pytest.raises(ValueError, match=r"epsilons: 0\.1 is one number; expected a list"):
        run(epsilons=0.1)
    with pytest.raises(ValueError, match=r"attacks: 'pgd' is one name; expected a list"):
        run(attacks="pgd")
    with pytest.raises(ValueError, match=r"threat\.epsilon: 8 is more than a pixel .* 8/255"):
        run(epsilons=[8])
    with pytest.raises(ValueError, match=r"batches_factory: list; expected a function"):
        run(factory=[])
    with pytest.raises(ValueError, match=r"batches: .* without index, valid; expected dicts with"):
        run(factory=lambda: [{"clip": CLIPS, "label": LABELS}])
    with pytest.raises(ValueError, match="did you mean pgd"):
        run(attacks=["pdg"])


def test_progress_ends_at_its_total():
    seen = []
    factory = planted.batches(np.concatenate([CLIPS, CLIPS]), 2 * LABELS, batch_size=5)
    run(factory, progress=lambda *state: seen.append(state))
    done = [state[0] for state in seen]
    assert done == sorted(done)
    assert set(done) == set(range(7))
    assert seen[-1] == (6, 6, "checks for masked gradients")


def test_margins_are_how_far_the_labels_logit_is_above_the_next():
    result = run(attacks=["pgd"])
    logits = np.asarray(planted.MIXTURE.apply(planted.PARAMS, next(iter(FACTORY()))["clip"] / 255))
    own = logits[np.arange(len(LABELS)), LABELS]
    np.testing.assert_allclose(
        result.margins["clean", 0.0], own - logits[np.arange(len(LABELS)), 1 - np.array(LABELS)]
    )
    attacked = result.margins["pgd", EPSILON]
    np.testing.assert_array_equal(attacked > 0, result.correct["pgd", EPSILON] > 0)


def test_labels_that_are_no_classes_have_no_margin():
    batch = {**next(iter(FACTORY())), "label": np.zeros((5, 3), np.int32)}
    result = run_plain(
        factory=lambda: [batch],
        metric=lambda logits, labels: (labels[:, 0] == 0).astype(jnp.float32),
        attacks=[],
    )
    assert result.margins is None
    assert result.confusion is None

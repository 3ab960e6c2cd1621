"""Checks of masked gradients: an honest mixture passes, planted frauds are flagged."""

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR

from jaxmoe.attacks import CASCADES, AttackSettings, Randomized
from jaxmoe.attacks.cascade import custom
from jaxmoe.evaluation import Programs, Row, evaluate_suite
from jaxmoe.evaluation.diagnostics.gradient_masking import router_gradient_check
from jaxmoe.evaluation.diagnostics.row_checks import epsilon_check, loss_check
from jaxmoe.evaluation.engine.verdict import verdict_line

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

CLIPS = planted.clips((NEAR, FAR), (FAR, NEAR), (FAR, FAR), (FAR, 100), (30, 100))
FACTORY = planted.batches(CLIPS, [0, 0, 0, 1, 0])


@pytest.fixture(autouse=True)
def masked(monkeypatch):
    """A cascade called `masked`: PGD, then Square."""
    monkeypatch.setitem(CASCADES, "masked", custom(["pgd", "square"]))


def verdicts(model, params=planted.PARAMS, factory=FACTORY, **options):
    options = {"epsilons": [2 / 255, 4 / 255], "settings": AttackSettings(steps=6)} | options
    result = evaluate_suite(model, params, factory, **options)
    assert all(check.sentence.endswith(".") for check in result.checks)
    return {check.name: check.verdict for check in result.checks}


def test_an_honest_mixture_passes_every_check():
    found = verdicts(planted.MIXTURE, attacks=["pgd", "pgd-r"], programs=planted.PROGRAMS)
    assert found.pop("white box beats Square") == "not run"
    assert len(found) == 6
    assert set(found.values()) == {"pass"}


def test_logits_times_a_million_are_flagged():
    params = planted.PARAMS | {"experts": 1e6 * planted.PARAMS["experts"]}
    found = verdicts(planted.MIXTURE, params, attacks=["pgd"], programs=planted.PROGRAMS)
    assert found["zero gradients"] == "flag"


def test_a_gradient_that_vanishes_behind_the_boundary_is_no_flag(monkeypatch):
    """As that of DLR where the label is third: such a clip is broken already."""

    def model(scale, x):
        v = planted.means(x)[:, 1] - 0.5
        return planted.two_sides(scale * jnp.where(v > 0, v, jax.lax.stop_gradient(v)))

    monkeypatch.setitem(CASCADES, "cascade", custom(["apgd-ce"]))
    factory = planted.batches(planted.clips((FAR, NEAR), (FAR, FAR)), [0, 0])
    options = {"attacks": ["cascade"], "probe_batches": 0}
    assert verdicts(model, jnp.float32(10.0), factory, **options)["zero gradients"] == "pass"


@pytest.mark.nightly
def test_one_expert_has_no_route_to_mask(monkeypatch):
    """Attacks on its router have a loss of 0 and no gradient, whatever the model is like."""
    monkeypatch.setitem(CASCADES, "routers", custom(["pgd-r", "fgsm"]))
    router = lambda scale, x: planted.means(x)[:, :1]  # noqa: E731
    model = planted.from_functions(router, planted.expert, num_experts=1, combine="none")
    params = {"router": jnp.float32(1.0), "experts": jnp.array([10.0])}
    found = verdicts(model, params, attacks=["fgsm", "pgd-r", "routers"])
    assert "router's gradient" not in found
    assert "flag" not in found.values()


def test_square_is_held_against_attacks_on_the_whole_model_alone():
    options = {"probe_batches": 0, "programs": planted.PROGRAMS, "epsilons": [4 / 255]}
    options["settings"] = AttackSettings(steps=6, queries=30)
    for attacks, verdict in ((["pgd-r", "square"], "not run"), (["pgd", "square"], "pass")):
        found = verdicts(planted.MIXTURE, attacks=attacks, **options)
        assert found["white box beats Square"] == verdict


@pytest.mark.nightly
def test_square_alone_says_nothing_of_gradients():
    settings = AttackSettings(queries=30)
    found = verdicts(planted.plain, jnp.float32(10.0), attacks=["square"], settings=settings)
    assert found["zero gradients"] == found["white box beats black box"] == "not run"


def test_a_model_with_noise_of_its_own_is_not_flagged_for_it():
    def apply(scale, x, key):
        flip = jnp.where(jax.random.uniform(key) < 0.1, -1.0, 1.0)
        return planted.plain(scale, x) * flip

    clips = planted.clips(*[(FAR, level) for level in range(180, 240, 5)])
    factory = planted.batches(clips, [0] * len(clips))
    found = verdicts(Randomized(apply), jnp.float32(10.0), factory, attacks=["pgd"])
    assert found["nothing survives unbounded ε"] == "pass"
    assert "white box beats black box" not in found


def test_numbers_that_are_not_finite_far_away_are_flagged():
    def model(scale, x):
        v = planted.means(x)[:, 1]
        return jnp.where(v[:, None] < 0.01, jnp.nan, planted.plain(scale, x))

    found = verdicts(model, jnp.float32(10.0), attacks=["fgsm"])
    assert found["nothing survives unbounded ε"] == "flag"


def test_a_router_of_integers_is_flagged():
    model = planted.mixture(router=lambda scale, x: jnp.round(planted.route(scale, x)))
    found = verdicts(model, attacks=["pgd-r"], probe_batches=0)
    assert found == {
        "zero gradients": "flag",
        "loss rises with steps": "flag",
        "accuracy falls with ε": "not run",
        "white box beats Square": "not run",
    }
    # Its own probe sees it where no attack was on the router.
    check = router_gradient_check(Programs(model), planted.PARAMS, list(FACTORY()))
    assert (check.verdict, check.value) == ("flag", 1.0)


def test_a_router_that_returns_indices_is_flagged():
    model = planted.mixture(router=lambda scale, x: jnp.argmax(planted.route(scale, x), axis=-1))
    check = router_gradient_check(Programs(model), planted.PARAMS, list(FACTORY()))
    assert (check.verdict, check.value) == ("flag", 1.0)
    result = evaluate_suite(
        model,
        planted.PARAMS,
        FACTORY,
        attacks=["pgd-r"],
        epsilons=[4 / 255],
        settings=AttackSettings(steps=2),
        probe_batches=0,
    )
    assert result.row("clean").robust_accuracy == 1
    assert verdict_line(result.checks).startswith("Masked gradients are likely (2 of 2 checks: z")


def test_what_square_breaks_alone_is_flagged():
    quantised = lambda scale, x: planted.plain(scale, jnp.round(64 * x) / 64)  # noqa: E731
    clips = planted.clips((0, NEAR), (0, FAR), (0, NEAR), (0, FAR))
    options = {"epsilons": [8 / 255], "settings": AttackSettings(steps=2, queries=20)}
    factory, params = planted.batches(clips, [0] * 4), jnp.float32(10.0)
    for attacks in (["pgd", "square"], ["masked"]):
        result = evaluate_suite(
            quantised, params, factory, attacks=attacks, probe_batches=0, **options
        )
        (check,) = (c for c in result.checks if c.name == "white box beats Square")
        assert (check.verdict, check.value) == ("flag", 0.5)
    honest = evaluate_suite(
        planted.plain, params, factory, attacks=["pgd", "square"], probe_batches=0, **options
    )
    assert {c.verdict for c in honest.checks if c.name == "white box beats Square"} == {"pass"}
    assert verdict_line(honest.checks).startswith("No sign of masked gradients in 3 checks")


def test_a_quantiser_is_flagged_by_its_gradients_and_by_epsilon_1():
    def quantised(scale, x):
        return planted.plain(scale, jnp.round(8 * x) / 8)

    found = verdicts(quantised, jnp.float32(10.0), attacks=["pgd"])
    assert found["zero gradients"] == "flag"
    assert found["nothing survives unbounded ε"] == "flag"


def test_clips_for_the_checks_are_drawn_from_a_split_that_is_sorted_by_class():
    """Only the last class has no gradient: the first two batches knew nothing of it."""

    def model(scale, x):
        v = planted.means(x)[:, 1] - 0.5
        return planted.two_sides(scale * jnp.where(v < 0, -0.5, v))

    clips = planted.clips(*[(0, FAR)] * 6, *[(0, 0)] * 6)
    factory = planted.batches(clips, [0] * 6 + [1] * 6, batch_size=2)
    result = evaluate_suite(model, jnp.float32(10.0), factory, attacks=["fgsm"], epsilons=[0.01])
    (check,) = (one for one in result.checks if one.name == "nothing survives unbounded ε")
    assert (check.verdict, check.value) == ("flag", 0.5)
    assert check.sentence.endswith("Clips: 4 of 12, drawn by class, seed 0.")


def test_noise_that_beats_the_attacks_is_flagged():
    # No gradient, and wrong as soon as v moves at all.
    def brittle(scale, x):
        same = jnp.abs(planted.means(x)[:, 1] - jnp.float32(FAR / 255)) < 1e-6
        return planted.two_sides(jnp.where(same, scale, -scale))

    factory = planted.batches(planted.clips((FAR, FAR), (FAR, FAR)), [0, 0])
    found = verdicts(brittle, jnp.float32(10.0), factory, attacks=["fgsm"])
    assert found["white box beats black box"] == "flag"


def row(epsilon, accuracy, trace=(1.0, 2.0), n=200):
    return Row(
        "pgd", epsilon, "linf", accuracy, accuracy, n, 0, len(trace) - 1, 1, 1, 0.1, 0.0
    )._replace(loss_trace=list(trace), zero_gradient=0.0)


@pytest.mark.parametrize(
    ("accuracies", "verdict"),
    [((0.5, 0.4, 0.3), "pass"), ((0.5, 0.3, 0.4), "flag"), ((0.5, 0.5, 0.505), "pass")],
)
def test_accuracy_may_not_rise_with_epsilon(accuracies, verdict):
    rows = [row(k / 255, accuracy) for k, accuracy in zip((1, 2, 4), accuracies, strict=True)]
    assert epsilon_check(rows[::-1]).verdict == verdict


@pytest.mark.parametrize(("n", "verdict"), [(20, "pass"), (40, "flag"), (400, "flag")])
def test_a_rise_of_one_eighth_says_more_of_more_clips(n, verdict):
    assert epsilon_check([row(0.1, 0.5, n=n), row(0.2, 0.625, n=n)]).verdict == verdict


def test_clips_that_went_the_other_way_count_too():
    rows = [row(0.1, 0.5), row(0.2, 0.55)]
    right = np.arange(200) < 100
    correct = {("clean", 0.0): np.ones(200), ("pgd", 0.1): right}
    for lost, verdict in ((0, "flag"), (90, "pass")):
        won = (np.arange(200) >= lost) & (np.arange(200) < 110 + lost)
        assert won.mean() == 0.55
        assert epsilon_check(rows, {**correct, ("pgd", 0.2): won}).verdict == verdict


def test_only_what_looks_everywhere_for_mistakes_must_grow_with_epsilon():
    """An attack on the router may turn routes to better experts, and one step may overshoot."""
    rows = [row(0.1, 0.3), row(0.2, 0.6)]
    assert epsilon_check(rows).verdict == "flag"
    for attack in ("pgd-r", "tlga-r", "pgd-e", "fgsm", "square", "worst-case", "clean"):
        assert epsilon_check([one._replace(attack=attack) for one in rows]).verdict == "not run"
    for attack in ("auto-attack", "j-tlga", "apgd-ce"):
        assert epsilon_check([one._replace(attack=attack) for one in rows]).verdict == "flag"


def test_noise_is_held_against_attacks_on_the_whole_model_alone():
    found = verdicts(planted.MIXTURE, attacks=["pgd-r"], programs=planted.PROGRAMS)
    assert found["white box beats black box"] == "not run"


def test_one_epsilon_is_no_evidence_of_a_fall():
    assert epsilon_check([row(1 / 255, 0.5)]).verdict == "not run"


def test_loss_is_compared_with_the_first_look():
    assert loss_check([row(0.1, 0.5, (1.0, 0.9, 1.1))]).verdict == "pass"
    check = loss_check([row(0.1, 0.5), row(0.2, 0.5, (1.0, 1.0, 0.9))])
    assert check.verdict == "flag"
    assert check.value == 0.5
    assert "pgd at ε = 51/255" in check.sentence
    # Two searches of 5000 looks, of which a trace keeps three each: the second starts higher.
    square = row(0.1, 0.5, (1.0, 1.0, 1.0, 2.0, 2.0, 2.0))._replace(steps=5000, restarts=2)
    assert loss_check([square]).verdict == "flag"
    assert loss_check([square._replace(loss_trace=[1.0, 1.0, 1.5] * 2)]).verdict == "pass"

"""Suites and transfer of models with a label for each pixel, on answers that are known."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import ATTACKS, AttackResult, AttackSettings, NamedAttack, build_attack
from jaxmoe.attacks.cascade import CASCADES, custom
from jaxmoe.evaluation import Grid, auto_attack, evaluate_suite, sweep_grid, transfer_matrix
from jaxmoe.evaluation.measures.metrics import accuracy
from jaxmoe.evaluation.suite import suite_pass
from jaxmoe.mixture import component, from_gate
from jaxmoe.models import ClasswiseGate, Conv, SimpleGate
from jaxmoe.threat import ThreatModel
from tests.night import at_night

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=4, alpha=0.5)
CLASSES = 3


def pixelwise(params, x):
    """Class 1 where a pixel is above one half, class 0 below; class 2 never."""
    above = params * (x[..., 0] - 0.5)
    return jnp.stack([-above, above, jnp.full_like(above, -100.0)], axis=-1)


def batch(distances, labels):
    """Images whose pixels lie so far above one half."""
    clip = 0.5 + np.asarray(distances, np.float32)[..., None]
    n = len(clip)
    label = np.asarray(labels, np.int32)
    return {"clip": clip, "label": label, "index": np.arange(n), "valid": np.ones(n, bool)}


NEAR, FAR = 2 / 255, 8 / 255
# Two images of four pixels; the last of the first is void, the last of the second wrong.
BATCH = batch(
    [[[NEAR, FAR], [-NEAR, -FAR]], [[FAR, FAR], [-FAR, FAR]]], [[[1, 1], [0, -1]], [[1, 1], [0, 0]]]
)


def slow_iou(pairs):
    """Mean IoU of (label, prediction) pairs, by sets."""
    values = []
    for k in range(CLASSES):
        both = sum(label == k and found == k for label, found in pairs)
        either = sum(label == k or found == k for label, found in pairs)
        if either:
            values.append(both / either)
    return sum(values) / len(values)


CLEAN_PAIRS = [(1, 1), (1, 1), (0, 0), (1, 1), (1, 1), (0, 0), (0, 1)]
BROKEN_PAIRS = [(1, 0), (1, 1), (0, 1), (1, 1), (1, 1), (0, 0), (0, 1)]


def run(**options):
    options = {"attacks": ["pgd"], "epsilons": [EPSILON], "probe_batches": 0} | options
    return evaluate_suite(
        pixelwise, jnp.float32(10.0), lambda: [BATCH], settings=SETTINGS, **options
    )


def test_mean_iou_is_of_one_confusion_matrix_and_accuracy_of_pixels_without_void():
    result = run()
    clean, pgd = result.row("clean"), result.row("pgd", EPSILON)
    assert clean.robust_accuracy == pytest.approx((3 / 3 + 3 / 4) / 2)
    assert clean.mean_iou == pytest.approx(slow_iou(CLEAN_PAIRS))
    assert pgd.robust_accuracy == pytest.approx((1 / 3 + 3 / 4) / 2)
    assert pgd.mean_iou == pytest.approx(slow_iou(BROKEN_PAIRS))
    for row in result.rows:
        low, high = row.mean_iou_interval
        assert 0 <= low <= row.mean_iou <= high <= 1
        assert high > low  # there are two unlike images
    assert result.confusion["pgd", EPSILON].sum() == 7


def turn(image):
    """An attack that turns the pixels of one image around one half, and leaves the other."""

    def build(model, threat, settings):
        del model, settings

        def attack(key, params, x, y):
            del key, params, y
            nothing = jnp.zeros(len(x), x.dtype)
            moved = threat.project(x.at[image].set(1 - x[image]), x)
            return AttackResult(
                moved, nothing, nothing[None], jnp.asarray(0), nothing, jnp.ones(len(x), bool)
            )

        return attack

    return NamedAttack(f"turn {image}", build, "model", from_clean=True)


def test_the_worst_case_is_of_each_image_the_attack_that_leaves_the_least(monkeypatch):
    for image in (0, 1):
        monkeypatch.setitem(ATTACKS, f"turn-{image}", turn(image))
    result = run(attacks=["turn-0", "turn-1"], epsilons=[1 / 255, 20 / 255])
    first = [(1, 0), (1, 0), (0, 1)]
    second = [(1, 0), (1, 0), (0, 1), (0, 0)]
    for attack, pairs in (
        ("turn-0", first + CLEAN_PAIRS[3:]),
        ("turn-1", CLEAN_PAIRS[:3] + second),
        ("worst-case", first + second),
    ):
        assert result.row(attack, 20 / 255).mean_iou == pytest.approx(slow_iou(pairs))
    # In a ball that is too small nothing turns, and the larger one's figures hold the smaller's.
    assert result.row("worst-case", 1 / 255).mean_iou == pytest.approx(slow_iou(CLEAN_PAIRS))


def test_predictions_that_no_attack_moves_are_flagged():
    def fixed(params, x):
        return jax.nn.one_hot(params, CLASSES) + 0 * jnp.sum(x)

    options = {"attacks": ["pgd"], "epsilons": [EPSILON], "probe_batches": 1, "settings": SETTINGS}
    verdicts = []
    for model, params in ((pixelwise, jnp.float32(10.0)), (fixed, jnp.abs(BATCH["label"]))):
        result = evaluate_suite(model, params, lambda: [BATCH], **options)
        (check,) = (c for c in result.checks if "unbounded" in c.name)
        verdicts.append(check.verdict)
    assert verdicts == ["pass", "flag"]


def test_a_cascade_keeps_what_left_the_least(monkeypatch):
    monkeypatch.setitem(CASCADES, "auto-attack-custom", custom(["pgd", "fgsm"]))
    row = run(attacks=["auto-attack-custom"]).row("auto-attack-custom", EPSILON)
    assert row.robust_accuracy == pytest.approx((1 / 3 + 3 / 4) / 2)
    assert row.mean_iou == pytest.approx(slow_iou(BROKEN_PAIRS))


def test_a_stopped_evaluation_goes_on_to_the_same_mean_iou(tmp_path):
    def stop(done, total, what):
        if what.startswith("fgsm"):
            raise KeyboardInterrupt

    options = {"attacks": ["pgd", "fgsm"], "journal": tmp_path / "journal"}
    with pytest.raises(KeyboardInterrupt):
        run(progress=stop, **options)
    said = []
    resumed, whole = run(say=said.append, **options), run(attacks=["pgd", "fgsm"])
    assert "1 results are there" in said[0]
    assert [row.mean_iou for row in resumed.rows] == [row.mean_iou for row in whole.rows]


def test_a_sweep_has_the_accuracy_of_pixels_at_every_setting():
    grid = Grid((1 / 255, EPSILON))
    result = sweep_grid(
        pixelwise, jnp.float32(10.0), lambda: [BATCH], attacks=["pgd"], grid=grid, settings=SETTINGS
    )
    found = [row.robust_accuracy for row in result.rows]
    assert found == pytest.approx([(3 / 3 + 3 / 4) / 2, (1 / 3 + 3 / 4) / 2])


def test_outputs_beyond_the_budget_are_computed_anew(monkeypatch):
    monkeypatch.setattr(suite_pass, "_KEEP_BELOW", 0)
    forgetful, whole = run(attacks=["fgsm"]), run(attacks=["fgsm"])
    for one, other in zip(forgetful.rows, whole.rows, strict=True):
        assert one.mean_iou == other.mean_iou
        assert one.lipschitz_model_mean == other.lipschitz_model_mean


@pytest.mark.parametrize("attack", ["fab", "square", "auto-attack"])
def test_attacks_on_one_label_are_refused(attack):
    with pytest.raises(ValueError, match="breaks one label of an example"):
        run(attacks=[attack])
    version = "standard" if attack == "auto-attack" else [attack]
    x, y = BATCH["clip"], BATCH["label"]
    with pytest.raises(ValueError, match="breaks one label of an example"):
        auto_attack(pixelwise, jnp.float32(10.0), x, y, epsilon=EPSILON, version=version)


def test_a_label_below_void_or_above_the_classes_is_named():
    wrong = {**BATCH, "label": BATCH["label"] + 2}
    with pytest.raises(ValueError, match="label: 1 to 3 on a model of 3 classes; expected -1 to 2"):
        evaluate_suite(
            pixelwise, jnp.float32(1.0), lambda: [wrong], attacks=["pgd"], epsilons=[EPSILON]
        )


def test_transfer_has_the_mean_iou_of_each_target():
    # The second model looks at another channel, which clips made on the first do not change.
    def other(params, x):
        return pixelwise(params, x[..., ::-1])

    clip = np.repeat(BATCH["clip"], 3, axis=-1)
    models = {"a": (pixelwise, jnp.float32(10.0)), "b": (other, jnp.float32(10.0))}
    result = transfer_matrix(
        models,
        models,
        lambda: [{**BATCH, "clip": clip}],
        attacks=["pgd", "universal"],
        epsilons=[EPSILON],
        settings=SETTINGS,
        training_batches=dict.fromkeys(models, lambda: [{**BATCH, "clip": clip}]),
        epochs=2,
    )
    own, crossed = (result.row("a", target, "pgd", EPSILON) for target in "ab")
    assert own.clean_iou == crossed.clean_iou == pytest.approx(slow_iou(CLEAN_PAIRS))
    assert own.mean_iou == pytest.approx(slow_iou(BROKEN_PAIRS))
    # A gradient of zero is a step of zero, but the random start moved the other channels too.
    assert crossed.mean_iou >= own.mean_iou
    others = result.row("all others", "b", "pgd", EPSILON)
    assert others.mean_iou == crossed.mean_iou
    universal = result.row("a", "a", "universal", EPSILON)
    assert own.mean_iou <= universal.mean_iou <= own.clean_iou


def test_standing_pgd_spends_a_small_ball_on_the_pixels_that_are_still_right():
    # In ℓ2 a pixel that is long wrong draws the step of mean cross-entropy to itself.
    distances = np.full((1, 4, 4), 0.05, np.float32)
    distances[:, :2] = -0.2  # wrong already, by far
    given = batch(distances, np.ones((1, 4, 4)))
    threat, params = ThreatModel("l2", 0.16), jnp.float32(10.0)
    settings = AttackSettings(steps=20, alpha=0.2)
    left = {}
    for name in ("pgd", "pgd-standing"):
        attack = build_attack(name, pixelwise, threat, settings)
        found = attack(jax.random.key(0), params, given["clip"], given["label"])
        left[name] = float(accuracy(pixelwise(params, found.x_adv), given["label"])[0])
        assert float(threat.size(found.x_adv, given["clip"])[0]) <= 0.16 + 1e-6
    assert left["pgd"] == 0.5
    assert left["pgd-standing"] < 0.5
    # What it calls its loss is the share of wrong pixels of what it returns.
    assert float(found.loss[0]) == pytest.approx(1 - left["pgd-standing"])


class Expert(nn.Module):
    """A logit for each pixel, and features at half the resolution."""

    @nn.compact
    def __call__(self, x, *, with_features=False):
        features = jnp.tanh(Conv(5, (3, 3), 2, name="features")(x))
        logits = Conv(CLASSES, (3, 3), name="logits")(x)
        return (logits, features) if with_features else logits


@pytest.mark.parametrize(
    "gate", [at_night(SimpleGate(2, 4)), at_night(ClasswiseGate(2, CLASSES, 4))]
)
def test_every_part_of_a_gated_mixture_is_attacked_and_scored(gate, monkeypatch):
    get, largest = jax.device_get, []

    def counted(tree):
        largest.extend(leaf.size for leaf in jax.tree.leaves(tree) if isinstance(leaf, jax.Array))
        return get(tree)

    monkeypatch.setattr(jax, "device_get", counted)
    mixture = from_gate(gate, Expert(), num_experts=2, head=Conv(CLASSES, (3, 3)))
    rng = np.random.default_rng(0)
    images = rng.random((2, 6, 8, 3)).astype(np.float32)
    params = mixture.init(jax.random.key(0), images)
    given = {**BATCH, "clip": images, "label": rng.integers(-1, CLASSES, (2, 6, 8))}
    given["label"] = given["label"].astype(np.int32)
    attacks = ["pgd", "pgd-r", "pgd-e", "enumerated-route"]
    result = evaluate_suite(
        mixture,
        params,
        lambda: [given],
        attacks=attacks,
        epsilons=[0.1],
        settings=SETTINGS,
        probe_batches=0,
    )
    assert 0 < max(largest) < 6 * 8 * CLASSES  # no logits of every pixel go to the host
    clean = result.row("clean")
    logits = np.asarray(mixture.apply(params, images))
    pairs = zip(given["label"].ravel(), logits.argmax(-1).ravel(), strict=True)
    assert clean.mean_iou == pytest.approx(slow_iou([pair for pair in pairs if pair[0] >= 0]))
    assert result.row("pgd", 0.1).mean_iou < clean.mean_iou
    assert sum(clean.load_clean) == pytest.approx(1)
    for name in attacks:
        row = result.row(name, 0.1)
        assert 0 <= row.flip_rate <= 1
        assert 0 <= row.routing_entropy_adversarial <= np.log(2) + 1e-6
    for name in ("mean", "max", "expert1"):
        part = component(mixture, name)
        assert part(params, images).shape == (2, 6, 8, CLASSES)
    with pytest.raises(
        ValueError, match=r"'expert2' is no part of a mixture; .* expert0 to expert1"
    ):
        component(mixture, "expert2")

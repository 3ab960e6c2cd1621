"""One call each: an attack, an evaluation and training of a mixture of one's own."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import jaxmoe
from jaxmoe import api
from jaxmoe.api import _find_recipe, _options_of
from jaxmoe.attacks import AttackSettings, cross_entropy
from jaxmoe.config import AATMConfig, JTLATConfig, MixtureConfig
from jaxmoe.evaluation import NonFiniteGradient, evaluate_suite
from jaxmoe.training import Phase, RecipeOptions, read_metrics
from tests.training.conftest import tiny_batch, tiny_mixture

EPSILON = 0.1
X, Y = tiny_batch().clip, np.arange(8, dtype=np.int32) % 3
QUIET = "ignore::jaxmoe.evaluation.EvaluationWarning"  # random params guess, and are told so


@pytest.fixture(autouse=True)
def standard_promotion():
    """Optax's Adam raises a float to an integer count, which strict promotion forbids."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.fixture(scope="module")
def mixture():
    return tiny_mixture()


@pytest.fixture(scope="module")
def params(mixture):
    return mixture.init(jax.random.key(0), None)


@pytest.fixture(scope="module")
def examples():
    batch = tiny_batch(20)
    return batch.clip, batch.label


def pairs(examples, size=8):
    """Batches of (x, y), the last one smaller."""
    x, y = examples
    return [(x[i : i + size], y[i : i + size]) for i in range(0, len(x), size)]


def equal(a, b) -> bool:
    return all(np.array_equal(x, y) for x, y in zip(*map(jax.tree.leaves, (a, b)), strict=True))


@pytest.mark.parametrize("name", ["pgd", "tlga-r", "j-tlga"])
def test_an_attack_is_one_call(mixture, params, examples, name):
    x, y = examples
    found = jaxmoe.attack(
        mixture, params, x, y, name, epsilon=EPSILON, settings=AttackSettings(steps=3)
    )
    change = np.abs(found.x_adv - x / np.float32(255))
    assert 0 < change.max() <= EPSILON + 1e-6
    again = jaxmoe.attack(
        mixture, params, x, y, name, epsilon=EPSILON, seed=1, settings=AttackSettings(steps=3)
    )
    assert not np.array_equal(found.x_adv, again.x_adv), "another seed starts elsewhere"


@pytest.mark.filterwarnings(QUIET)
def test_an_evaluation_is_that_of_the_suite_however_it_is_cut(mixture, params, examples):
    x, y = examples
    wanted = {"attacks": ["pgd"], "epsilons": [EPSILON], "settings": AttackSettings(steps=2)}
    found = jaxmoe.evaluate(mixture, params, x, y, batch_size=8, checks=False, **wanted)
    index = np.arange(len(x))
    whole = {"clip": x, "label": y, "index": index, "valid": np.ones(len(x), bool)}
    suite = evaluate_suite(mixture, params, lambda: [whole], checks=False, **wanted)
    assert [row.robust_accuracy for row in found.rows] == [
        row.robust_accuracy for row in suite.rows
    ]
    assert found.rows[0].n == 20
    with pytest.raises(ValueError, match=r"x, y: shapes \(20, .* and \(3,\)"):
        jaxmoe.evaluate(mixture, params, x, y[:3], **wanted)
    with pytest.raises(ValueError, match="batch_size: 0"):
        jaxmoe.evaluate(mixture, params, x, y, batch_size=0, **wanted)


def test_training_lowers_the_loss_and_leaves_the_params_given(mixture, params, examples):
    before = jax.tree.map(np.array, params)
    trained = jaxmoe.fit(
        mixture, params, pairs(examples), "standard", epochs=30, learning_rate=1e-2
    )

    def loss(params):
        return float(
            jnp.mean(cross_entropy(mixture.apply(params, examples[0] / 255.0), examples[1]))
        )

    assert loss(trained) < 0.7 * loss(params)
    assert equal(params, before)


@pytest.mark.parametrize("kind", ["name", "recipe", "phases"])
def test_a_recipe_may_be_a_name_a_recipe_or_phases(mixture, params, examples, kind):
    def loss(params, x, y, found):
        return cross_entropy(mixture.apply(params, x), y)

    phases = [Phase("experts", None, loss, frozenset({"experts"}))]
    recipe = {
        "name": "standard",
        "recipe": lambda mixture, threat, options: tuple(phases),
        "phases": phases,
    }[kind]
    trained = jaxmoe.fit(mixture, params, pairs(examples), recipe, epochs=1)
    assert not equal(trained["experts"], params["experts"])
    assert equal(trained["router"], params["router"]) == (kind != "name")


@pytest.mark.nightly
def test_floats_train_as_the_grey_levels_that_they_are(mixture, params, examples):
    x, y = examples
    grey = jaxmoe.fit(mixture, params, pairs((x, y)), "standard", epochs=2)
    floats = jaxmoe.fit(
        mixture, params, pairs((x.astype(np.float32) / 255, y)), "standard", epochs=2
    )
    for a, b in zip(*map(jax.tree.leaves, (grey, floats)), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


class StoppedError(Exception):
    pass


@pytest.mark.nightly  # by day a run does, in runs/defences_test
def test_a_stopped_training_goes_on_to_the_same_bits(mixture, params, examples, tmp_path):
    class Impatient:
        steps = 0

        def stage(self, name, steps, done):
            self.begun = name, steps, done

        def step(self, metrics):
            self.steps += 1
            if self.steps == 17:
                raise StoppedError

        def epoch(self, epoch, validation):
            self.seen = epoch, validation.accuracy

    def train(directory, progress=None, epochs=10):
        return jaxmoe.fit(
            mixture,
            params,
            pairs(examples, 10),
            "at_m",
            epochs=epochs,
            epsilon=EPSILON,
            options=RecipeOptions(AttackSettings(steps=1), balance_weight=1.0),
            validation=pairs(examples, 7),
            directory=directory,
            progress=progress,
        )

    impatient = Impatient()
    with pytest.raises(StoppedError):
        train(tmp_path / "a", impatient)
    assert impatient.seen[0] == 8
    after = Impatient()
    assert equal(train(tmp_path / "a", after), train(tmp_path / "b"))
    assert after.begun == ("at_m", 20, 16), "the checkpoint of the eighth epoch"
    with pytest.raises(ValueError, match=r"directory: .* with epochs = 10, not 11; choose another"):
        train(tmp_path / "a", epochs=11)
    (tmp_path / "b" / "config.json").touch()
    with pytest.raises(ValueError, match=r"directory: .* holds a run of `jaxmoe train`"):
        train(tmp_path / "b")
    lines = [line for line in read_metrics(tmp_path / "a") if "epoch" in line]
    assert [line["epoch"] for line in lines] == list(range(1, 11))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (
            {"recipe": "at_x"},
            r"recipe\.name: 'at_x' is not accepted; did you mean at_s\? All are standard",
        ),
        (
            {
                "recipe": "adv_moe",
                "epsilon": 0.1,
                "options": RecipeOptions(inner_attack="tla-m"),
                "batches": [(np.zeros((8, 9, 9, 3), np.uint8), Y)],
            },
            r"recipe: adv_moe attacks in time, and inputs of shape \[8, 9, 9, 3\] look like images",
        ),
        (
            {"recipe": "tlat", "epsilon": 0.1, "batches": [(np.zeros((8, 9, 9, 3), np.uint8), Y)]},
            r"recipe: tlat attacks in time, and inputs of shape \[8, 9, 9, 3\] look like images",
        ),
        ({"recipe": "at_m"}, "epsilon: None; expected a radius"),
        ({"epochs": 0}, "epochs: 0; expected at least 1"),
        ({"batches": []}, "batches: none; expected at least one"),
        ({"batches": iter([])}, "batches: list_iterator; expected a list or a loader"),
        ({"validation": []}, "validation: none; expected at least one"),
        (
            {"batches": [(X, Y), (X, Y[:3])]},
            r"batches: shapes \(8, .* and \(3,\); expected as many",
        ),
        ({"batches": [(X.astype(np.float32), Y)]}, r"batches: clip: pixels from 0 to .* x / 255"),
        ({"batches": [(X, Y + 1)]}, r"batches: label: .* \(these look numbered from 1\)"),
        ({"batches": [(X, np.eye(3, dtype=np.int32)[Y])]}, "batches: label: .*one-hot"),
    ],
)
def test_what_cannot_be_trained_is_one_line(mixture, params, examples, fields, message):
    given = {"batches": pairs(examples), "recipe": "standard", "epochs": 1} | fields
    with pytest.raises(ValueError, match=message):
        jaxmoe.fit(mixture, params, given.pop("batches"), given.pop("recipe"), **given)


def test_passes_that_differ_in_length_are_told_apart(mixture, params, examples):
    class Shrinking:
        passes = 0

        def __iter__(self):
            self.passes += 1
            return iter(pairs(examples)[: 5 - self.passes])

    with pytest.raises(ValueError, match="batches: 2 in this pass, and 3 in the first"):
        jaxmoe.fit(mixture, params, Shrinking(), "standard", epochs=2)


@pytest.mark.nightly
def test_a_recipe_that_draws_epsilon_measures_on_validation_batches(mixture, params, examples):
    x, y = examples
    with pytest.raises(ValueError, match="validation: None; expected batches: recipe aat_m"):
        jaxmoe.fit(mixture, params, [(x, y)], "aat_m", epochs=1, epsilon=0.1)
    recipe = AATMConfig(radii=3, measure_every=1)
    given = {"epochs": 2, "epsilon": 0.1, "validation": [(x, y)]}
    trained = jaxmoe.fit(mixture, params, [(x, y)], recipe, **given)
    plain = jaxmoe.fit(mixture, params, [(x, y)], "at_m", **given)
    assert not equal(trained, plain)


@pytest.mark.nightly
def test_validation_draws_a_start_for_each_example_however_it_is_cut(mixture, params, examples):
    class Seen:
        accuracies = ()

        def stage(self, name, steps, done):
            pass

        def step(self, metrics):
            pass

        def epoch(self, epoch, validation):
            self.accuracies += ((validation.accuracy, validation.robust_accuracy),)

    def judged(size):
        seen, options = Seen(), RecipeOptions(AttackSettings(steps=1))
        validation = pairs(examples, size)
        jaxmoe.fit(
            mixture,
            params,
            pairs(examples, 10),
            "at_m",
            epochs=1,
            epsilon=EPSILON,
            options=options,
            validation=validation,
            progress=seen,
        )
        return seen.accuracies

    assert judged(5) == judged(20)


def test_an_attack_that_saw_nan_did_not_fail(mixture, params, examples):
    x, y = examples
    broken = jax.tree.map(lambda leaf: leaf * np.nan, params)
    with pytest.raises(
        NonFiniteGradient, match="pgd: a loss or gradient is not finite on 20 of 20"
    ):
        jaxmoe.attack(mixture, broken, x, y, "pgd", epsilon=EPSILON)


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        (JTLATConfig(weak_experts=9), r"recipe\.weak_experts: 9 is not accepted; expected at most"),
        (JTLATConfig(lam=-1.0), r"recipe\.lam: -1\.0 is not accepted; expected a finite"),
        (JTLATConfig(order="hour"), r"recipe\.order: 'hour' is not accepted; expected one of"),
    ],
)
def test_a_recipes_fields_are_checked(mixture, params, examples, recipe, message):
    with pytest.raises(ValueError, match=message):
        jaxmoe.fit(mixture, params, pairs(examples), recipe, epochs=1, epsilon=0.1)


@pytest.mark.parametrize("order", ["minibatch", "epoch"])
def test_phases_take_turns_as_the_recipe_says(mixture, params, examples, monkeypatch, order):
    seen = []
    monkeypatch.setattr(api, "train_through", lambda *a, **_: seen.append(a[2]) or params)
    jaxmoe.fit(mixture, params, pairs(examples), JTLATConfig(order=order), epochs=1, epsilon=0.1)
    ((stage,),) = seen
    assert stage.in_turn == (order == "epoch")


def test_defaults_are_those_of_an_experiment():
    options = _options_of(_find_recipe("j_tlat")[0], None)
    assert options.balance_weight == 1.5, "without it all clips go to one expert"
    options = _options_of(_find_recipe(JTLATConfig(weak_experts=1))[0], None)
    assert (options.balance_weight, options.weak_experts) == (1.5, 1)
    few = RecipeOptions(AttackSettings(steps=2))
    assert _options_of(_find_recipe("j_tlat")[0], few).balance_weight == 1.5
    assert (
        _options_of(_find_recipe("j_tlat")[0], few._replace(balance_weight=0.0)).balance_weight == 0
    )
    given = JTLATConfig(weak_experts=1)
    assert _options_of(given, RecipeOptions(beta=1.0), given=True).weak_experts == 1
    assert _options_of(given, RecipeOptions(weak_experts=3)).weak_experts == 3
    at_m = _options_of(_find_recipe("at_m")[0], None)
    assert at_m.balance_weight == MixtureConfig().balance_weight


def test_images_are_not_attacked_in_time():
    images = np.zeros((8, 9, 9, 3), np.float32)
    with pytest.raises(ValueError, match=r"tla-m: inputs of shape .* look like images"):
        jaxmoe.attack(lambda p, x: x.mean((1, 2)), None, images, Y, "tla-m", epsilon=0.1)

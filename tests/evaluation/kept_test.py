"""What is kept of every example, against a plain rewrite on the clips that attacks returned."""

import jax.numpy as jnp
import numpy as np
import planted
import planted_cascade
import pytest
from planted import FAR, NEAR

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Programs, evaluate_suite
from jaxmoe.evaluation.engine.kept import kept_of
from jaxmoe.reporting.results import write_examples

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

# Route breakable, class breakable, neither, wrong when clean, class breakable.
CLIPS = planted.clips((NEAR, FAR), (FAR, NEAR), (FAR, FAR), (FAR, 0), (FAR, NEAR))
ATTACKS = ["pgd", "pgd-r"]


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def answers(clips):
    """Prediction, confidence, expert and router weights of the planted mixture."""
    u, v = (clips.astype(np.float64).mean((2, 3, 4))[:, frame] - 0.5 for frame in (0, 1))
    weights, expert = softmax(np.stack([10 * u, -10 * u], -1)), (u < 0).astype(int)
    z = np.where(expert == 0, 10, -10) * v
    return (z < 0).astype(int), softmax(np.stack([z, -z], -1)).max(-1), expert, weights


def sizes(clips, clean, order):
    """The norm of each frame's change, [..., T]."""
    change = (clips.astype(np.float64) - clean).reshape(*clips.shape[:-3], -1)
    return np.linalg.norm(change, ord=order, axis=-1)


def files_of(folder, attack):
    """The clips that an attack returned, in the order of a pass."""
    files = sorted(folder.glob(f"{attack}-l*/*.npz"), key=lambda file: int(file.stem))
    return np.concatenate([np.load(file)["x_adv"] for file in files])


def test_the_file_has_what_the_mixture_says_of_each_clip_that_an_attack_returned(tmp_path):
    result = evaluate_suite(
        planted.MIXTURE,
        planted.PARAMS,
        planted.batches(CLIPS, [0] * 5, batch_size=2),
        attacks=ATTACKS,
        epsilons=[4 / 255],
        settings=AttackSettings(steps=6),
        examples=tmp_path / "examples",
        checks=False,
    )
    with np.load(write_examples(result, tmp_path), allow_pickle=False) as file:
        found = dict(file)
    assert found["attack"].tolist() == ["clean", *ATTACKS]
    clean = CLIPS / np.float32(255)
    lines = [clean, *(files_of(tmp_path / "examples", name) for name in ATTACKS)]
    for line, clips in enumerate(lines):
        prediction, confidence, expert, weights = answers(clips)
        np.testing.assert_array_equal(found["prediction"][line], prediction)
        np.testing.assert_allclose(found["confidence"][line], confidence, atol=1e-3)
        np.testing.assert_array_equal(found["expert"][line], expert)
        np.testing.assert_allclose(found["weights"][line], weights, atol=1e-3)
        np.testing.assert_allclose(found["size"][line], sizes(clips, clean, np.inf), rtol=1e-3)
    assert found["expert"][2].tolist() == [1, 0, 0, 0, 0]  # the route was turned
    right = found["prediction"] == found["label"]
    np.testing.assert_array_equal(right, found["correct"] > 0)
    assert found["size"].shape == (3, 5, 2)
    kinds = {name: found[name].dtype for name in ("prediction", "confidence", "expert", "size")}
    assert [*kinds.values()] == [np.int16, np.float16, np.int16, np.float16]


def test_a_plain_classifier_has_no_routes_and_l2_sizes_are_frame_by_frame(tmp_path):
    result = evaluate_suite(
        planted.plain,
        jnp.float32(10.0),
        planted.batches(CLIPS, [0] * 5),
        attacks=["pgd"],
        epsilons=[0.3],
        settings=AttackSettings(steps=2, restarts=3),
        norm="l2",
        examples=tmp_path / "examples",
        checks=False,
    )
    (clips,) = [files_of(tmp_path / "examples", "pgd")]
    kept = result.kept["pgd", 0.3]
    assert kept.weights is None
    assert kept.expert.tolist() == [-1] * 5
    expected = sizes(clips, CLIPS / np.float32(255), 2)
    np.testing.assert_allclose(kept.size, expected, rtol=2e-3, atol=1e-4)
    assert np.all(np.sqrt(np.sum(expected**2, axis=1)) <= 0.3 + 1e-6)
    with np.load(write_examples(result, tmp_path), allow_pickle=False) as file:
        assert "weights" not in file
        np.testing.assert_array_equal(file["confidence"][1], kept.confidence)


def test_a_cascade_keeps_the_attempt_that_broke_a_clip_or_came_nearest(cascade, tmp_path):
    result = planted_cascade.run(examples=tmp_path)
    kept, clean = result.kept["two", planted_cascade.EPSILON], result.kept["clean", 0.0]
    right = result.correct["two", planted_cascade.EPSILON]
    tries = {number: [] for number in range(5)}
    for file in tmp_path.rglob("*.npz"):
        with np.load(file) as one:
            for index, x_adv in zip(one["index"].tolist(), one["x_adv"], strict=True):
                tries[index].append(x_adv)
    assert [len(tries[number]) for number in range(5)] == [0, 1, 3, 1, 3]
    for number, clips in tries.items():
        if not clips:  # wrong when clean: no attempt saw it
            assert kept.prediction[number] == clean.prediction[number]
            assert not kept.size[number].any()
            continue
        margin = np.stack(clips).mean((2, 3, 4))[:, 1] - 0.5
        assert kept.prediction[number] == (margin.min() < 0) == (right[number] == 0)
        chosen = clips[int(np.argmin(margin))]
        clip = planted_cascade.CLIPS[number] / np.float32(255)
        np.testing.assert_allclose(kept.size[number], sizes(chosen, clip, np.inf), rtol=1e-3)
        z = 10 * abs(margin.min())
        assert kept.confidence[number] == pytest.approx(1 / (1 + np.exp(-2 * z)), abs=1e-3)


def test_what_pixels_say_by_themselves_is_not_known():
    logits = jnp.zeros((2, 3, 3, 4))
    kept = kept_of(logits, jnp.zeros((2, 4, 2)).at[:, 0, 1].set(5.0))
    assert kept.prediction.tolist() == kept.expert.tolist() == [-1, -1]
    assert np.isnan(kept.confidence).all()
    np.testing.assert_allclose(kept.weights.sum(-1), 1, rtol=1e-6)
    several = 1 / (1 + np.exp(-5))
    np.testing.assert_allclose(kept.weights[0, 1], (several + 3 / 2) / 4, rtol=1e-5)


def test_programs_score_alike_with_clean_outputs_from_the_device_or_the_host():
    programs = Programs(planted.plain)
    (batch,) = planted.batches(CLIPS, [0] * 5)()
    params = jnp.float32(10.0)
    clean, _ = programs.clean(params, batch)
    x_adv = jnp.asarray(CLIPS / np.float32(255))
    for outputs in (clean, clean._replace(kept=None)):
        programs.score(params, batch, x_adv, outputs, 0.1)
    assert programs.compilations["score"] == 1

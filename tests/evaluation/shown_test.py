"""The whole examples of an evaluation: clips, maps, and an evaluation that goes on."""

import contextlib
import itertools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import planted
import pytest
from planted import FAR, NEAR
from planted_cascade import CLIPS, EPSILON, LABELS, PARAMS, run

from jaxmoe.attacks import AttackSettings, Cascade, stage
from jaxmoe.evaluation import Programs, evaluate_suite
from jaxmoe.evaluation.engine.shown import join_step_sizes
from jaxmoe.reporting.results import write_examples, write_shown

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

OPTIONS = {"attacks": ["pgd", "two"], "epsilons": [EPSILON, 1 / 255]}


def read(result, folder):
    (path,) = write_shown(result, folder)
    with np.load(path, allow_pickle=False) as file:
        return dict(file)


def test_shown_clips_are_those_of_the_line_that_is_named(cascade, tmp_path):
    found = read(run(**OPTIONS, examples=tmp_path), tmp_path)
    names, epsilons = OPTIONS["attacks"], OPTIONS["epsilons"]
    lines = [("clean", 0.0), *itertools.product(names, epsilons)]
    assert sorted(found["position"]) == [0, 1, 2, 3, 4]
    reasons = dict(zip(found["position"].tolist(), found["why"].tolist(), strict=True))
    assert reasons == {
        0: "random",  # wrong when clean
        1: "smallest epsilon",
        3: "smallest epsilon",
        2: "survivor",
        4: "survivor",
    }
    assert (found["clean"].dtype, found["adversarial"].dtype) == (np.uint8, np.float16)
    for place, line, clean, adversarial in zip(
        found["position"], found["line"], found["clean"], found["adversarial"], strict=True
    ):
        np.testing.assert_array_equal(clean, CLIPS[place])
        attack, epsilon = lines[line]
        assert epsilon == EPSILON  # 1/255 breaks nothing
        clips = [np.load(file) for file in tmp_path.glob(f"{attack}-linf-{epsilon:.6g}/*.npz")]
        same = [
            np.array_equal(adversarial, x_adv.astype(np.float16))
            for one in clips
            for x_adv, index in zip(one["x_adv"], one["index"], strict=True)
            if index == place
        ]
        assert any(same)


@pytest.mark.parametrize(
    ("stop", "attacks"), [(2, ["pgd", "two"]), (9, ["pgd", "two"]), (9, ["two", "pgd"])]
)
def test_an_evaluation_that_goes_on_writes_the_same_files(
    cascade, tmp_path, monkeypatch, stop, attacks
):
    options = OPTIONS | {"attacks": attacks}

    def files(result, name):
        folder = tmp_path / name
        folder.mkdir()
        write_examples(result, folder)
        write_shown(result, folder)
        return {file.name: file.read_bytes() for file in folder.iterdir()}

    attack, taken, last = Programs.attack, [], [None]

    def counted(self, *args):
        taken.append(args[0])
        if len(taken) == last[0]:
            raise KeyboardInterrupt
        return attack(self, *args)

    monkeypatch.setattr(Programs, "attack", counted)
    whole, calls = files(run(**options), "whole"), len(taken)
    taken.clear()
    last[0] = stop
    with pytest.raises(KeyboardInterrupt):
        run(**options, journal=tmp_path / "journal")
    resumed = run(**options, journal=tmp_path / "journal")
    assert files(resumed, "resumed") == whole
    # A clip of the first attack is shown: a batch of it is attacked once more, beside the stop.
    assert 1 in resumed.shown.line
    assert calls + 1 < len(taken) <= calls + 4
    taken.clear()
    last[0] = None
    assert files(run(**options, journal=tmp_path / "journal"), "again") == whole
    assert taken == []
    assert sorted(whole) == ["examples.npz", "shown.npz"]


def test_one_example_of_a_mixture_is_shown_and_none_where_nothing_attacks(tmp_path):
    factory = planted.batches(planted.clips((FAR, NEAR)), [0])
    options = {"epsilons": [4 / 255], "settings": AttackSettings(steps=6), "checks": False}

    def found(**more):
        return evaluate_suite(planted.MIXTURE, planted.PARAMS, factory, **options, **more)

    shown = read(found(attacks=["pgd"]), tmp_path)
    assert shown["why"].tolist() == ["smallest epsilon"]
    assert shown["clean"].shape == (1, 2, 8, 8, 1)
    for result in (found(attacks=[]), found(attacks=["pgd"], shown=0)):
        assert write_shown(result, tmp_path) == []
        assert not (tmp_path / "shown.npz").exists()  # of an evaluation before
    with pytest.raises(ValueError, match="shown: -1; expected 0, for none, or more"):
        found(attacks=["pgd"], shown=-1)


def arrays_of(journal):
    """All arrays and numbers of a journal's records, but for the one of the shown examples."""
    with journal.open("rb") as file, contextlib.suppress(EOFError):
        records = [pickle.load(file)]
        while True:
            key, record = pickle.load(file)
            records += [] if key[0] == "shown" else [record]
    return jax.tree.leaves(records)


@pytest.mark.nightly
def test_step_sizes_of_temporal_momentum_are_shown(tmp_path):
    clips = planted.clips((FAR, NEAR), (FAR, NEAR), (FAR, 255), (FAR, 255))
    radii, steps = (1 / 255, 8 / 255), AttackSettings(steps=6, temporal_alpha=0.5)
    options = {"epsilons": radii, "settings": steps, "checks": False, "probe_batches": 0}
    programs = Programs(planted.MIXTURE)

    def found(size, **more):
        factory = planted.batches(clips, [0, 0, 0, 0], batch_size=size)
        result = evaluate_suite(
            planted.MIXTURE, planted.PARAMS, factory, programs=programs, **options, **more
        )
        return read(result, tmp_path)

    shown = found(3, attacks=["tla-m"])
    (batch,) = planted.batches(clips, [0, 0, 0, 0])()
    alone = [
        programs.attack("tla-m", planted.PARAMS, batch, epsilon, steps, 0)[0].step_sizes
        for epsilon in radii
    ]
    want = np.stack(alone)[shown["line"] - 1, shown["position"]]
    assert want.shape == (4, 6, 2)
    np.testing.assert_allclose(shown["step_sizes"], want, rtol=1e-5)
    # A cascade tells them too; an attack without has none.
    own = Cascade("Temporal", (stage("tla-m"),))
    shown = found(4, attacks=["own"], cascades={"own": own})
    assert np.isfinite(shown["step_sizes"]).all()
    assert "step_sizes" not in found(4, attacks=["pgd"])
    # No record of an attack holds those of all examples.
    journal = tmp_path / "journal"
    found(4, attacks=["tla-m"], journal=journal)
    shapes = {np.shape(leaf) for leaf in arrays_of(journal)}
    assert (7, 4) in shapes, "the losses of 6 steps"
    assert (4, 6, 2) not in shapes


def test_step_sizes_of_unequal_attacks_are_filled_up_with_nan():
    found = join_step_sizes([None, np.ones((2, 3)), np.zeros((1, 3))])
    assert found.shape == (3, 2, 3)
    np.testing.assert_array_equal(np.isnan(found).sum((1, 2)), [6, 0, 3])
    np.testing.assert_array_equal(found[1:, 0], [[1, 1, 1], [0, 0, 0]])
    assert join_step_sizes([None, None]) is None


def test_images_with_labels_of_pixels_are_shown_with_their_maps(tmp_path):
    def pixelwise(scale, x):
        above = scale * (x[..., 0] - 0.5)
        return jnp.stack([-above, above], axis=-1)

    draw = np.random.default_rng(0)
    clip = draw.uniform(0.45, 0.55, (5, 4, 6, 1)).astype(np.float32)
    label = (clip[..., 0] > 0.5).astype(int)
    label[:, 0] = -1

    def batches():
        for rows in ([0, 1], [2, 3], [4, 4]):
            index, valid = np.array(rows), np.array([True, rows != [4, 4]])
            yield {"clip": clip[rows], "label": label[rows], "index": index, "valid": valid}

    options = {"attacks": ["pgd"], "epsilons": [0.02], "settings": AttackSettings(steps=3)}
    result = evaluate_suite(pixelwise, PARAMS, batches, checks=False, **options)
    shown = read(result, tmp_path)
    place = shown["position"]
    assert sorted(place) == [0, 1, 2, 3, 4]
    assert shown["clean"].shape == shown["adversarial"].shape == (5, 1, 4, 6, 1)
    np.testing.assert_array_equal(shown["label_map"], label[place])
    for name in ("clean", "adversarial"):
        pixels = shown[name].astype(np.float64) / (255 if name == "clean" else 1)
        np.testing.assert_array_equal(shown[f"{name}_map"], pixels[:, 0, ..., 0] > 0.5)
        assert shown[f"{name}_map"].dtype == np.int16
    assert np.any(shown["clean_map"] != shown["adversarial_map"])
    assert np.abs(shown["clean"][:, 0] / 255 - clip[place]).max() <= 0.5 / 255 + 1e-6
    assert result.kept["pgd", 0.02].prediction.tolist() == [-1] * 5
    assert np.isnan(result.kept["pgd", 0.02].confidence).all()


def test_labels_are_needed_for_no_map():
    result = run(attacks=["pgd"])
    assert result.shown.label_map is None
    assert len(result.shown.position) == len(LABELS)

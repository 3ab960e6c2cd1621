"""A grid in one program gives what its settings give one by one, within its memory, resumably."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import ATTACKS, AttackSettings
from jaxmoe.benchmarks.subjects import linear_clips, linear_mixture
from jaxmoe.evaluation import Grid, Programs, evaluate_suite, sweep_grid
from jaxmoe.evaluation.suite import grid as grid_module

# Planted models guess and mask on purpose; `model_checks_test` looks at what is told of them.
pytestmark = pytest.mark.filterwarnings("ignore::jaxmoe.evaluation.EvaluationWarning")

MIXTURE, PARAMS = linear_mixture()
CLIPS = np.asarray(linear_clips(16))
SETTINGS = AttackSettings(steps=3, queries=5, restarts=2)
GRID = Grid((0.0, 8 / 255), {"alpha": (0.1, 0.5), "lam": (0.0, 1e-3)})


def factory(batch_size=6):
    for start in range(0, 10, batch_size):
        index = np.arange(start, start + batch_size)
        yield {
            "clip": CLIPS[index],
            "label": (index % 3).astype(np.int32),
            "index": index.astype(np.int32),
            "valid": index < 10,
        }


def sweep(attacks=("pgd",), grid=GRID, **options):
    options = {"settings": SETTINGS} | options
    return sweep_grid(MIXTURE, PARAMS, factory, attacks=attacks, grid=grid, **options)


def test_a_sweep_keeps_the_best_iterate_whatever_training_keeps():
    # Waves, so that large steps overshoot and the last iterate is not the best.
    weights = np.random.default_rng(0).normal(size=(CLIPS[0].size, 3)).astype(np.float32)

    def waves(params, x):
        return jnp.sin(20 * x.reshape(len(x), -1) @ params)

    labels = np.argmax(waves(weights, CLIPS / 255.0), axis=-1)

    def batches():
        for batch in factory():
            yield {**batch, "label": labels[batch["index"]].astype(np.int32)}

    def rows(iterate):
        settings = AttackSettings(steps=3, iterate=iterate)
        grid = Grid((8 / 255,), {"alpha": (2.0,)})
        return sweep_grid(
            waves, weights, batches, attacks=["pgd"], grid=grid, settings=settings
        ).rows

    assert rows("last") == rows(None)


@pytest.mark.parametrize(
    "name",
    [pytest.param(name, marks=[] if name == "j-tlga" else pytest.mark.nightly) for name in ATTACKS],
)
def test_every_setting_gives_what_it_gives_alone(name):
    found = sweep([name])
    assert found.compilations == {name: 1}
    numbers = {"alpha": 0.5, "lam": 1e-3}
    alone = evaluate_suite(
        MIXTURE,
        PARAMS,
        factory,
        attacks=[name],
        epsilons=GRID.epsilons,
        settings=dataclasses.replace(SETTINGS, **numbers),
        probe_batches=0,
    )
    rows = [row for row in found.rows if row.numbers == numbers]
    assert len(rows) == 2
    for place, row in enumerate(rows):
        other = alone.row(name, row.epsilon)
        shared = "robust_accuracy", "n", "seed", "steps", "restarts", "gradient_evaluations"
        assert all(getattr(row, field) == getattr(other, field) for field in shared)
        right = found.correct[name][4 * place + 3]
        np.testing.assert_array_equal(right, alone.correct[name, row.epsilon])


def test_chunks_that_fit_the_memory_change_no_result():
    whole = sweep(["fgsm"])
    assert whole.chunks == {"fgsm": 8}
    few = sweep(["fgsm"], memory=20_000)
    assert 1 <= few.chunks["fgsm"] < 8
    np.testing.assert_array_equal(few.correct["fgsm"], whole.correct["fgsm"])


@pytest.mark.nightly
def test_programs_serve_other_settings_and_every_decay_is_its_own():
    programs = Programs(MIXTURE)
    weak = AttackSettings(steps=1, alpha=0.0)
    grid = Grid((0.3,), {"decay": (0.0, 1.0)})
    sweep(grid=grid, settings=weak, programs=programs)
    again = sweep(["pgd", "tla-m", "mi-fgsm"], grid=grid, programs=programs)
    for name in ("pgd", "tla-m", "mi-fgsm"):
        alone = sweep([name], grid=Grid((0.3,), {"decay": (1.0,)}))
        np.testing.assert_array_equal(again.correct[name][1], alone.correct[name][0])
    with pytest.raises(ValueError, match=r"programs: compiled for another model, norm or metric"):
        sweep(programs=programs, norm="l2")


def test_a_sweep_that_was_stopped_goes_on(tmp_path):
    def stop(done, total, what):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        sweep(journal=tmp_path / "j", progress=stop)
    seen = []
    programs = Programs(MIXTURE)
    timed = programs.timed

    def counted(name, *args, **options):
        seen.append(name)
        return timed(name, *args, **options)

    programs.timed = counted
    found = sweep(journal=tmp_path / "j", programs=programs)
    assert seen.count("grid pgd") == 2  # both restarts of the second batch
    np.testing.assert_array_equal(found.correct["pgd"], sweep().correct["pgd"])


def test_more_epsilons_values_and_attacks_take_what_is_there(tmp_path, monkeypatch):
    ran, run = [], grid_module._Sweep._run

    def counted(self, name, batch, chunk, restart):
        ran.extend((name, round(255 * point.epsilon), *point.numbers) for point in chunk)
        return run(self, name, batch, chunk, restart)

    monkeypatch.setattr(grid_module._Sweep, "_run", counted)
    options = {"settings": AttackSettings(steps=1), "journal": tmp_path / "j"}
    options["programs"] = Programs(MIXTURE)
    one = sweep(grid=Grid((4 / 255,), {"alpha": (0.25,)}), **options)
    assert set(ran) == {("pgd", 4, 0.25)}
    ran.clear()
    more = sweep(grid=Grid((4 / 255, 8 / 255), {"alpha": (0.25, 0.5)}), **options)
    assert set(ran) == {("pgd", 4, 0.5), ("pgd", 8, 0.25), ("pgd", 8, 0.5)}
    np.testing.assert_array_equal(more.correct["pgd"][0], one.correct["pgd"][0])


def test_curves_take_the_strongest_setting():
    found = sweep()
    clean, attacked = found.curves()["pgd"]
    assert clean == (0.0, found.clean_accuracy)
    rows = [row.robust_accuracy for row in found.rows if row.epsilon == 8 / 255]
    assert attacked == (8 / 255, min(rows))


def test_a_grid_refuses_what_no_attack_has():
    with pytest.raises(ValueError, match=r"epsilons: none given"):
        Grid(())
    with pytest.raises(ValueError, match=r"threat\.epsilon: -1"):
        Grid((-1.0,))
    with pytest.raises(ValueError, match=r"attack\.lam: -1"):
        Grid((0.1,), {"lam": (-1.0,)})
    with pytest.raises(ValueError, match=r"grid: 'steps'"):
        Grid((0.1,), {"steps": (1,)})
    with pytest.raises(ValueError, match=r"auto-attack is a cascade"):
        sweep(["auto-attack"])

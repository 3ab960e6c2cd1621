"""Adversarial clips in files are those of the results beside them."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import planted
from planted import FAR, NEAR

from jaxmoe.attacks import AttackSettings
from jaxmoe.evaluation import Programs, evaluate_suite

EPSILON = 4 / 255
SETTINGS = AttackSettings(steps=1)
FACTORY = planted.batches(planted.clips((NEAR, FAR), (FAR, NEAR), (FAR, FAR)), [0, 0, 0])
PROGRAMS = Programs(planted.plain)


def made(folder, steps=1, journal=None):
    """The clips that an evaluation leaves in a folder."""
    evaluate_suite(
        planted.plain,
        jnp.float32(10.0),
        FACTORY,
        attacks=["pgd"],
        epsilons=[EPSILON],
        settings=dataclasses.replace(SETTINGS, steps=steps),
        programs=PROGRAMS,
        checks=False,
        journal=journal,
        examples=folder,
    )
    return np.concatenate([np.load(file)["x_adv"] for file in sorted(folder.rglob("*.npz"))])


def test_files_are_made_anew_where_another_evaluation_made_those_that_are_there(tmp_path):
    folder, journal = tmp_path / "examples", tmp_path / "journal"
    one, three = made(tmp_path / "one"), made(tmp_path / "three", steps=3)
    assert np.any(one != three)
    for steps, expected in ((1, one), (3, three), (1, one)):
        np.testing.assert_array_equal(made(folder, steps, journal), expected)
    np.testing.assert_array_equal(made(tmp_path / "elsewhere", 1, journal), one)


def test_files_of_results_that_are_there_stay_as_they_are(tmp_path):
    folder, journal = tmp_path / "examples", tmp_path / "journal"
    made(folder, journal=journal)
    (file,) = folder.rglob("0.npz")
    before = file.stat().st_mtime_ns
    made(folder, journal=journal)
    assert file.stat().st_mtime_ns == before

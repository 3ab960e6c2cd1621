"""A journal gives back what was written whole, and nothing else."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.attacks import ATTACKS, AttackSettings, NamedAttack
from jaxmoe.evaluation import Programs
from jaxmoe.evaluation.engine.journal import Journal, entry, model_digest


def write(file, fingerprint="f", values=range(3)):
    journal = Journal(file, fingerprint)
    for value in values:
        journal.recall(("key", value), lambda value=value: {"squared": value**2})
    return journal


def refuse():
    raise AssertionError("computed again")


def test_what_was_computed_is_not_computed_again(tmp_path):
    write(tmp_path / "j")
    journal = Journal(tmp_path / "j", "f")
    assert journal.found == 3
    assert journal.recall(("key", 2), refuse) == {"squared": 4}
    with pytest.raises(AssertionError, match="again"):
        journal.recall(("key", 3), refuse)


@pytest.mark.parametrize("lost", [1, 2, 9, 20, 30])
def test_a_torn_record_is_cut_away_and_the_rest_serves(tmp_path, lost):
    write(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole[:-lost])
    journal = write(tmp_path / "j", values=range(2, 3))
    assert 1 <= journal.found < 3
    assert Journal(tmp_path / "j", "f").recall(("key", 2), refuse) == {"squared": 4}


def test_another_evaluation_begins_anew_and_the_first_is_kept(tmp_path):
    assert write(tmp_path / "j").note({"key"}) == ""
    journal = write(tmp_path / "j", fingerprint="g", values=range(1))
    assert journal.found == 0
    assert "was of another evaluation" in journal.note({"key"})
    assert Journal(tmp_path / "j", "g").found == 1
    assert write(tmp_path / "j", fingerprint="h", values=range(2)).found == 0
    for fingerprint, found in (("f", 3), ("g", 1), ("f", 3), ("h", 2)):
        journal = Journal(tmp_path / "j", fingerprint)
        assert (journal.found, "going on" in journal.note({"key"})) == (found, True)
    assert len([*tmp_path.iterdir()]) == 3


@pytest.mark.parametrize("content", [b"", b"nothing of ours", b"\x80\x05K"])
def test_a_file_that_is_no_journal_is_begun_anew(tmp_path, content):
    (tmp_path / "j").write_bytes(content)
    assert write(tmp_path / "j").found == 0
    assert Journal(tmp_path / "j", "f").found == 3


def test_without_a_file_nothing_is_kept():
    assert write(None).found == 0


def test_logits_of_padding_may_be_no_numbers_and_others_differ_by_rounding_alone(tmp_path):
    logits = np.array([[1.0, -2.0], [np.nan, np.nan]])
    Journal(tmp_path / "j", "f", [logits]).recall("key", lambda: 1)
    assert Journal(tmp_path / "j", "f", [logits * (1 + 1e-6)]).found == 1
    assert Journal(tmp_path / "j", "f", [logits * 1.1]).found == 0


def test_only_what_is_asked_for_is_counted(tmp_path):
    write(tmp_path / "j")
    journal = Journal(tmp_path / "j", "f")
    assert journal.note({"other"}) == ""
    assert "3 results are there" in journal.note({"key", "other"})
    assert journal.holds("key")
    assert not journal.holds("other")
    assert ("key", 2) in journal
    assert ("key", 3) not in journal


def test_models_are_told_apart_by_their_logits_too(tmp_path):
    logits = np.array([[1.0, -2.0]])
    names = [Journal(tmp_path / "j", "f").model("m", [part]) for part in (logits, 2 * logits)]
    journal = Journal(tmp_path / "j", "f")
    assert [journal.model("m", [part]) for part in (1.000001 * logits, 2 * logits)] == names
    assert len({*names, journal.model("n", [logits]), journal.model("n", [2 * logits])}) == 4


@pytest.mark.parametrize(
    ("attack", "change", "same"),
    [
        ("pgd", {"queries": 9, "targets": 2, "lam": 1.0, "gamma2": 3.0}, True),
        ("pgd", {"steps": 9}, False),
        ("pgd", {"alpha": 0.5}, False),
        ("pgd", {"restarts": 2}, False),
        ("fgsm", {"steps": 9, "alpha": 0.5, "restarts": 2}, True),
        ("mi-fgsm", {"restarts": 2}, True),
        ("mi-fgsm", {"decay": 0.5}, False),
        ("square", {"steps": 9, "alpha": 0.5, "targets": 2}, True),
        ("square", {"queries": 9}, False),
        ("apgd-t", {"targets": 2}, False),
        ("tlga-r", {"lam": 1.0}, False),
        ("universal", {"alpha": 0.5}, False),
    ],
)
def test_an_entry_is_of_the_numbers_that_its_attack_takes(attack, change, same):
    settings = AttackSettings()
    other = dataclasses.replace(settings, **change)
    assert (entry(attack, settings, 0.1) == entry(attack, other, 0.1)) is same
    assert entry(attack, settings, 0.1) != entry(attack, settings, 0.2)


def test_an_attack_of_ones_own_may_take_every_number(monkeypatch):
    own = NamedAttack("own", lambda model, threat, settings: None, "model")
    monkeypatch.setitem(ATTACKS, "own", own)
    settings = AttackSettings()
    other = dataclasses.replace(settings, queries=9)
    assert entry("own", settings) != entry("own", other)


def test_functions_that_only_gradients_tell_apart_have_two_fingerprints():
    def seen(params, x):
        return x * params

    def unseen(params, x):
        return jax.lax.stop_gradient(x) * params

    params = jnp.ones(3)
    assert model_digest(Programs(seen), params) == model_digest(Programs(seen), params)
    assert model_digest(Programs(seen), params) != model_digest(Programs(unseen), params)

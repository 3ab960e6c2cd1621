"""Settings refuse what makes no sense, and their numbers stay arrays to the compiler."""

import jax
import pytest

from jaxmoe.attacks import AttackSettings


@pytest.mark.parametrize(
    ("field", "value", "message"),
    [
        ("alpha", -0.1, r"attack.alpha: -0.1 is not a finite number ≥ 0"),
        ("decay", float("inf"), r"attack.decay: inf"),
        ("lam", float("nan"), r"attack.lam: nan"),
        ("gamma1", -1, r"attack.gamma1: -1"),
        ("gamma2", -1, r"attack.gamma2: -1"),
        ("steps", 0, r"attack.steps: 0 is not at least 1"),
        ("restarts", 0, r"attack.restarts: 0 is not at least 1"),
        ("shifts", -1, r"attack.shifts: -1 is not at least 0"),
        ("sparse_frames", 0, r"attack.sparse_frames: 0 is not at least 1"),
        ("gradient", "true", r"attack.gradient: 'true' is not one of hard, soft, straight_through"),
        ("momentum_axis", "x", r"attack.momentum_axis: 'x' is not one of iterations, frames"),
        ("momentum_direction", "x", r"attack.momentum_direction: 'x' is not one of shorten, boost"),
        ("iterate", "first", r"attack.iterate: 'first' is not one of best, last"),
        ("router_output", "x", r"attack.router_output: 'x' is not one of weights, logits"),
    ],
)
def test_impossible_settings_are_refused(field, value, message):
    with pytest.raises(ValueError, match=message):
        AttackSettings(**{field: value})


def test_several_starts_need_the_best_iterate():
    with pytest.raises(ValueError, match=r"iterate: last .*restarts = 2; expected best"):
        AttackSettings(iterate="last", restarts=2)


def test_the_numbers_are_traced_and_the_others_are_static():
    leaves, structure = jax.tree.flatten(AttackSettings())
    assert len(leaves) == 7
    numbers = AttackSettings(alpha=0.5, decay=0.1, lam=0.2, gamma1=0.3, gamma2=0.4)
    assert jax.tree.structure(numbers) == structure
    for field in (
        {"steps": 3},
        {"restarts": 2},
        {"shifts": 2},
        {"sparse_frames": 2},
        {"gradient": "soft"},
        {"iterate": "last"},
        {"stop_denominator": True},
    ):
        assert jax.tree.structure(AttackSettings(**field)) != structure

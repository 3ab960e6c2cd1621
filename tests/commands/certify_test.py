"""`jaxmoe certify`: its files hold what it proved, and bad input is one line."""

import json

import numpy as np
import pytest

from tests.commands.tiny import refused, run


def test_certified_is_at_most_what_an_attack_leaves(trained, folder, capsys):
    assert run("certify run --radii 0 0.2 0.4 --samples 40 --examples 6 --steps 3") == 0
    printed = capsys.readouterr().out
    for name in ("certificate.json", "certificate.md", "certificate.png"):
        assert (trained / name).stat().st_size > 0
        assert name in printed
    lipschitz, smoothing = json.loads((trained / "certificate.json").read_text())
    assert [lipschitz["method"], smoothing["method"]] == ["lipschitz", "smoothing"]
    for curve in (lipschitz, smoothing):
        assert curve["n"] == 6
        assert curve["radii"] == [0.0, 0.2, 0.4]
        assert np.all(np.diff(curve["certified_accuracy"]) <= 0)
    certified, under = lipschitz["certified_accuracy"], lipschitz["accuracy_under_pgd"]
    assert certified[0] == under[0]
    assert np.all(np.array(certified) <= under)
    # 40 of 40 votes bound a probability by 0.001^(1/40) = 0.841, and the radius by 0.25 Φ⁻¹(0.841).
    assert smoothing["certified_accuracy"][2] == 0
    assert smoothing["median_radius"] < 0.2501
    assert "hard top-1 mixture" in printed


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--norm linf", "--norm: smoothing certifies in l2, not in linf"),
        ("--sigma 0", "smoothing.sigma: 0.0 is not a finite number above 0"),
        ("--samples 0", "smoothing.samples: 0 is not at least 1"),
        ("--radii -1", "--radii: -1 is not accepted"),
        ("--examples 0", "--examples: 0 is not accepted; expected at least 1"),
        ("--method proof", "proof"),
    ],
)
def test_bad_input_is_one_line(described, folder, arguments, message, capsys):
    del described
    assert message in refused(f"certify run {arguments}", folder, capsys)

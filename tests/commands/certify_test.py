"""`jaxmoe certify`: its files hold what it proved, and bad input is one line."""

import itertools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.evaluation.lipschitz_bounds import logit_difference_bounds
from jaxmoe.experiment import build_modules, evaluation_loader
from jaxmoe.run import load
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
    assert "PGD-3 without noise %" in printed
    assert smoothing["settings"]["samples"] == 40
    assert smoothing["settings"]["largest_radius"] == pytest.approx(0.25 * 0.9998, abs=2e-3)
    assert "40 samples, which certify at most 0.25 " in printed
    assert (lipschitz["seed"], lipschitz["checkpoint"]) == (0, "latest")
    assert "checkpoint latest" in (trained / "certificate.md").read_text()

    found = load(trained)
    router, expert = build_modules(found.experiment, 10)
    route, params = found.mixture.route, found.params
    radii = []
    for batch in itertools.islice(
        evaluation_loader(found.dataset.test, found.experiment.data, 1), 6
    ):
        x = jnp.asarray(batch["clip"], jnp.float32) / 255
        logits = route(params, x)[0]
        first, second = jnp.argsort(-logits)[:2]
        own = jax.tree.map(lambda leaf, first=first: leaf[first], params["experts"])
        z = expert.apply(own, x)[0]
        of_router = logit_difference_bounds(router, params["router"], x.shape[1:], "l2")
        of_expert = logit_difference_bounds(expert, own, x.shape[1:], "l2")
        margins = [(z.max() - z[j]) / of_expert[z.argmax(), j] for j in range(10) if z[j] < z.max()]
        stable = (logits[first] - logits[second]) / of_router[first, second]  # of two experts
        if z.argmax() == batch["label"][0]:
            radii.append(min(stable, *margins))
    assert len(radii) == 6 * lipschitz["certified_accuracy"][0] > 0
    assert lipschitz["median_radius"] == pytest.approx(float(np.median(radii)), rel=1e-3)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("--method smoothing --norm linf", "in l2, not in linf; --method lipschitz does"),
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

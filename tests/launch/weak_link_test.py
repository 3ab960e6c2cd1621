"""The weak-link table: both forms, means over a recipe's runs, who is weaker."""

import dataclasses
import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxmoe.config import Experiment
from jaxmoe.evaluation.engine.part import take_part_of
from jaxmoe.mixture import from_functions
from jaxmoe.reporting import write_results
from launch.studies.weak_link import run as launcher
from tests.launch.fakes import row


def test_forms_are_told_apart_and_runs_of_a_recipe_are_averaged(tmp_path):
    for seed in (0, 1):
        rows = [
            row("clean", 0.0, 0.9),
            # End to end the router is weaker, isolated the experts are.
            row("pgd-r", 8 / 255, 0.3 + 0.1 * seed, 0.7),
            row("pgd-e", 8 / 255, 0.6, 0.2 + 0.1 * seed),
        ]
        write_results(rows, tmp_path / f"rt_er_{seed}")
    runs = [tmp_path / "rt_er_0", tmp_path / "rt_er_1"]
    options = launcher.parse([str(run) for run in runs])
    floors = {runs[0]: 0.4, runs[1]: 0.5}
    text = launcher.table(options.runs, options.router, options.experts, floors)
    some = launcher.table(options.runs, options.router, options.experts, floors, [8 / 255])
    assert some == text
    line = "| rt_er | 2 × 20 | 8/255 | 90.0 | 35.0 | 60.0 | 70.0 | 45.0 | 25.0 | router | experts |"
    assert line in text.splitlines()


def test_runs_with_other_numbers_of_inputs_name_each():
    assert launcher.count_of([23, 24, 23]) == "23 + 24 + 23"
    assert launcher.count_of([20]) == "20"


def test_the_floor_is_where_every_expert_is_right(tmp_path, monkeypatch):
    # Expert 0 says the class of the grey level; expert 1 always says 1.
    def expert(params, x):
        level = jnp.round(x[:, 0, 0, 0, 0] * 255).astype(jnp.int32)
        return jax.nn.one_hot(jnp.where(params == 1, 1, level), 3)

    mixture = from_functions(
        lambda params, x: x[:, 0, 0, 0, :2] * params, expert, num_experts=2, top_k=1
    )
    params = {"router": jnp.ones(2), "experts": jnp.arange(2)}
    clip = np.arange(4, dtype=np.uint8).reshape(4, 1, 1, 1, 1).repeat(3, axis=-1)
    labels = np.array([0, 1, 2, 1])

    @dataclasses.dataclass
    class Source:
        records: list[int]
        dense: bool = False

        @property
        def labels(self):
            return labels[self.records]

        def take(self, records):
            return Source(records)

    def loader(source, *_):
        return [{"clip": clip, "label": labels, "valid": np.isin(np.arange(4), source.records)}]

    write_results([row("clean", 0.0, 0.9)._replace(n=3)], tmp_path / "part")
    part = take_part_of(Source([0, 1, 2, 3]), 3).records
    trained = types.SimpleNamespace(
        mixture=mixture,
        params=params,
        experiment=Experiment(),
        dataset=types.SimpleNamespace(test=Source([0, 1, 2, 3])),
    )
    monkeypatch.setattr(launcher.folders, "load", lambda run: trained)
    monkeypatch.setattr(launcher, "evaluation_loader", loader)
    assert launcher.floor(tmp_path, "part") is None  # no run
    (tmp_path / "config.json").touch()
    # Expert 1 is right on clips 1 alone, expert 0 on 0, 1 and 2.
    assert len(part) == 3
    assert launcher.floor(tmp_path, "part") == pytest.approx((1 in part) / 3)
    trained.mixture = mixture._replace(head=lambda params, x, logits: logits)  # a dual model's
    assert launcher.floor(tmp_path, "part") is None
    trained.mixture = mixture._replace(top_k=2)
    assert launcher.floor(tmp_path, "part") is None


def test_runs_without_the_attacks_are_refused(tmp_path, capsys):
    write_results([row("clean", 0.0, 0.9)], tmp_path / "a_0")
    for seed, radius in enumerate((4 / 255, 8 / 255)):
        rows = [row(attack, radius, 0.5, 0.5) for attack in ("pgd-r", "pgd-e")]
        write_results([row("clean", 0.0, 0.9), *rows], tmp_path / f"c_{seed}")
    uneven = [str(tmp_path / "c_0"), str(tmp_path / "c_1")]
    for arguments, said in (
        ([str(tmp_path / "b_0")], "no results.json"),
        ([str(tmp_path / "a_0")], "not evaluated under pgd-r"),
        ([uneven[0], "--epsilons", "4/255", "8/255"], "c_0 has no pgd-r at 0.0313725"),
        (uneven, "c_1 has other ε under pgd-r than the rest"),
    ):
        with pytest.raises(SystemExit):
            launcher.parse(arguments)
        assert said in capsys.readouterr().err

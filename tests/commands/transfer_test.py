"""`jaxmoe transfer`: files, clips that are learned from, and what it refuses."""

import json

import numpy as np
import pytest

from jaxmoe.config import to_dict
from tests.commands.tiny import TINY, refused, run


def test_transfer_writes_what_it_says(pair, folder, capsys):
    options = "--attacks fgsm universal --epsilons 8/255 --epochs 1 --seed 3"
    assert run(f"transfer run other/run {options}") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "written to transfer: transfer.json, transfer.csv, transfer.md" in output.out
    for name in ("transfer.json", "transfer.csv", "transfer.md", "transfer.png"):
        assert (folder / "transfer" / name).stat().st_size
    rows = json.loads((folder / "transfer" / "transfer.json").read_text())
    names = [f"{folder.name}/run", "other/run"]
    pairs = [[source, target] for source in [*names, "all others"] for target in names]
    for attack in ("fgsm", "universal"):
        found = [[row["source"], row["target"]] for row in rows if row["attack"] == attack]
        assert found == pairs
    assert {(row["n"], row["seed"], row["epsilon"]) for row in rows} == {(10, 3, 8 / 255)}
    for name in names:
        assert name in output.out
    assert "clean (no attack)" in output.out
    # Fresh params guess: it is said, and stands above the tables.
    for text in (output.out, (folder / "transfer" / "transfer.md").read_text()):
        assert "ther/run: Clean accuracy is" in text


def test_transfer_learns_from_training_clips_and_judges_by_test_clips(pair, monkeypatch, capsys):
    from jaxmoe.evaluation import NonFiniteError

    def look(sources, targets, batches, *, training_batches, **options):
        def indices(factory):
            return np.concatenate([batch["index"][batch["valid"]] for batch in factory()]).tolist()

        assert indices(batches) == list(range(30, 40))
        assert [indices(f) for f in training_batches.values()] == [list(range(20))] * 2
        (model, params), (other, others) = sources.values()
        assert model is other  # one architecture compiles once
        assert params is not others
        assert targets == sources
        raise NonFiniteError("seen")

    monkeypatch.setattr("jaxmoe.evaluation.transfer_matrix", look)
    assert run("transfer run other/run --attacks universal") == 1
    assert capsys.readouterr().err == "jaxmoe: seen\n"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--attacks univresal", ["univresal", "did you mean universal?"]),
        ("--epsilons -0.1", ["--epsilons", "-0.1", "≥ 0"]),
        ("--epochs 0", ["--epochs", "0", "at least 1"]),
        ("--steps 0", ["attack.steps", "0", "at least 1"]),
        ("--epsilon 8/255", ["--epsilon", "--epsilons"]),
    ],
)
def test_transfer_refuses_bad_options(options, said, described, folder, capsys):
    line = refused(f"transfer run other/run {options}", folder, capsys)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("section", "field", "value", "said"),
    [
        ("data", "frames", 8, ["data.frames = 8", "run has 4", "same input shape"]),
        ("data", "height", 8, ["data.height = 8", "run has 16", "same input shape"]),
        ("threat", "norm", "l2", ["threat.norm = l2", "run has linf", "--norm"]),
    ],
)
def test_transfer_refuses_runs_that_differ(section, field, value, said, described, folder, capsys):
    config = to_dict(TINY)
    config[section][field] = value
    (described / "config.json").write_text(json.dumps(config))
    line = refused("transfer run other/run", folder, capsys)
    for part in ("other/run", *said):
        assert part in line


def test_transfer_refuses_runs_on_other_test_clips(pair, folder, capsys):
    config = to_dict(TINY)
    config["data"]["seed"] = 1
    (pair / "config.json").write_text(json.dumps(config))
    assert run("transfer run other/run") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other/run has other test examples than run" in line

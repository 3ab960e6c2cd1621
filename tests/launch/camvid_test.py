"""The CamVid launcher: what starts from what, which images are attacked, and the tables."""

import pathlib
import types

import jax
import pytest

from jaxmoe.commands.arguments import load_config
from jaxmoe.config import Experiment
from jaxmoe.evaluation import Row, TransferRow
from launch.studies.camvid import run as launcher


class Twice:
    def apply(self, params, x):
        return params * x


class Source:
    records = tuple(range(233))
    dense = True

    def __len__(self):
        return len(self.records)

    def take(self, records):
        return records


@pytest.fixture
def options(tmp_path):
    (tmp_path / "data" / "trainannot").mkdir(parents=True)
    return launcher.parse(["--data", str(tmp_path / "data"), "--runs", str(tmp_path / "runs")])


def test_gates_start_from_two_experts_of_two_parts(options, monkeypatch):
    commands = []

    def record(command, check):
        commands.append(command[3:])
        return type("Done", (), {"returncode": 0})

    monkeypatch.setattr(launcher.subprocess, "run", record)
    options.lines = ["mixtures"]
    launcher.train("frrn", options)
    assert len(commands) == 6
    assert all(pathlib.Path(command[1]).is_file() for command in commands)
    assert [c[c.index("--data.subset") + 1] for c in commands[:2]] == list(launcher.SUBSETS)
    experts = [c[c.index("--run.directory") + 1] for c in commands[:2]]
    for command in commands[2:]:
        place = command.index("--training.initialize-experts-from")
        assert command[place + 1 : place + 3] == experts
    assert len({tuple(command[-3:]) for command in commands[2:]}) == 4


def test_single_networks_take_as_many_epochs_as_experts_and_gate(options, monkeypatch):
    commands = []
    monkeypatch.setattr(launcher, "run", lambda *command: commands.append(command))
    options.lines = ["networks"]
    launcher.train("deeplab", options)
    assert len(commands) == 2
    expert, gate = (
        load_config(str(launcher.CONFIGS / f"camvid_deeplab_{kind}.py"))
        for kind in ("expert", "gate")
    )
    epochs = str(expert.training.epochs + gate.training.epochs)
    for config, folder, _, *changed in commands:
        assert config == "deeplab_expert"
        assert changed[:2] == ["--training.epochs", epochs]
        assert "--data.subset" not in changed
        assert folder.name.startswith("deeplab_one_network")
    assert commands[0][1] != commands[1][1]


def own_row(attack, epsilon, mean_iou):
    return Row(*(attack, epsilon, "linf", 0.9, 0.9, 59, 0, 1, 1, 1.0, 0.0, 0.0), mean_iou=mean_iou)


def own_rows():
    for model, clean in (("expert0", 0.55), ("simple", 0.6)):
        rows = [own_row("clean", 0.0, clean)]
        for epsilon in (0.01, 0.03):
            for loss, attack in enumerate((*launcher.ATTACKS, "worst-case")):
                rows.append(own_row(attack, epsilon, 0.5 - 0.1 * loss - 5 * epsilon))
        yield model, rows


def transfer_rows():
    for number, attack in enumerate(("pgd", "universal")):
        for epsilon in (0.01, 0.03):
            for source in ("expert0", "simple"):
                for target in ("expert0", "simple"):
                    seen = 0.5 - 0.1 * number - 5 * epsilon + (0.2 if source != target else 0)
                    yield TransferRow(
                        *(source, target, attack, epsilon, "linf"),
                        *(0.9, 0.9, 0.9, 59, 0),
                        mean_iou=seen,
                        clean_iou=0.6 if target == "simple" else 0.55,
                    )


def test_the_tables_have_each_models_own_attacks_and_two_transfers():
    rows = list(transfer_rows())
    white = launcher.white_box(dict(own_rows()), rows)
    assert (
        "| expert0 | 55.0 | 45.0 / 35.0 | 35.0 / 25.0 | 25.0 / 15.0 | 15.0 / 5.0 | 35.0 / 25.0 |"
        in white
    )
    assert "ε = 0.01 / 0.03, linf, n = 59 test images" in white
    assert "| expert0 | 35.0 | 55.0 |" in launcher.transfer(rows, "pgd")
    assert "| expert0 | 25.0 | 45.0 |" in launcher.transfer(rows, "universal")
    assert "mIoU %, pgd, ε = 0.03." in launcher.transfer(rows, "pgd")


def test_results_of_other_images_are_not_taken(options):
    folder = launcher.results_of("frrn", options)
    crossed = launcher.transfer_of(folder, options)
    options.training_images += 1
    assert launcher.results_of("frrn", options) == folder
    assert launcher.transfer_of(folder, options) != crossed
    options.images += 1
    assert launcher.results_of("frrn", options) != folder


def test_what_is_there_is_not_attacked_again(options, monkeypatch):
    calls = []

    def suite(mixture, params, loader, *, journal, **_):
        calls.append(journal.parent.name)
        journal.touch()
        return types.SimpleNamespace(rows=[own_row("clean", 0.0, 0.5)], checks=(), notes=())

    def matrix(sources, targets, loader, *, attacks, journal, **_):
        calls.append(*attacks)
        journal.touch()
        return types.SimpleNamespace(rows=list(transfer_rows()))

    split = types.SimpleNamespace(test=Source(), train=Source())
    found = types.SimpleNamespace(
        mixture=Twice(), params=2.0, experiment=Experiment(), dataset=split
    )
    monkeypatch.setattr(launcher.runs, "load", lambda folder: found)
    monkeypatch.setattr(launcher, "component", lambda mixture, part: mixture)
    monkeypatch.setattr(launcher, "evaluation_loader", lambda *_: [])
    monkeypatch.setattr(launcher, "evaluate_suite", suite)
    monkeypatch.setattr(launcher, "transfer_matrix", matrix)
    launcher.attack("frrn", options)
    assert calls == [*launcher.NETWORKS, *launcher.MODELS, "pgd", "universal"]
    calls.clear()
    launcher.attack("frrn", options)
    assert not calls
    folder = launcher.results_of("frrn", options)
    (folder / "simple" / "results.md").unlink()
    (launcher.transfer_of(folder, options) / "transfer.md").unlink()
    launcher.attack("frrn", options)
    assert calls == ["simple", "pgd", "universal"]


def test_no_gradient_flows_through_the_blind_mixture():
    ((name, (model, params)),) = launcher.blind({"simple": (Twice(), 2.0)}).items()
    assert name in launcher.MODELS
    assert model(params, 3.0) == 6.0
    assert jax.grad(lambda x: model(params, x))(3.0) == 0.0

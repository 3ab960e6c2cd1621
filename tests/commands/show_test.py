"""`jaxmoe show`: what a run's folder says, without computing anything."""

import dataclasses
import json

import pytest

from jaxmoe.cli import main
from jaxmoe.commands.show import _what
from jaxmoe.config import ATMConfig, TrainingConfig
from jaxmoe.reporting import write_results
from tests.commands.tiny import TINY, refused
from tests.launch.fakes import row


def shown(run, capsys) -> str:
    assert main(["show", str(run)]) == 0
    return capsys.readouterr().out


def test_a_run_that_has_no_checkpoint_yet(described, capsys):
    text = shown(described, capsys)
    assert "stopped, no checkpoint yet" in text
    assert "goes on where it stopped\n\nnot evaluated yet\n" in text


def test_a_trained_and_evaluated_run(trained, capsys):
    text = shown(trained, capsys)
    assert "finished, 1 steps, 1:15" in text
    assert f"next: jaxmoe evaluate {trained}" in text
    write_results([row("clean", 0.0, 0.9), row("pgd", 8 / 255, 0.25)], trained)
    found = {"notes": ["a note"], "specialization": {"sentence": "The router decides nothing."}}
    (trained / "evaluation.json").write_text(json.dumps(found))
    text = shown(trained, capsys)
    assert "last evaluation, n = 20" in text
    assert "25.00" in text
    assert text.endswith("a note\nThe router decides nothing.\n")


def test_stages_are_told_in_their_order():
    training = TrainingConfig(shared_epochs=3, specialize_epochs=4, standard_epochs=5, epochs=6)
    tiny = dataclasses.replace(TINY, recipe=ATMConfig())
    told = _what(dataclasses.replace(tiny, training=training))["epochs"]
    assert told == "shared 3, specialists by clusters 4, standard 5, at_m 6"
    later = dataclasses.replace(training, initialize_from="runs/a")
    assert _what(dataclasses.replace(tiny, training=later))["epochs"] == "at_m 6, from runs/a"


@pytest.mark.parametrize(("name", "said"), [("nowhere", "no config.json"), (".", "no config.json")])
def test_a_folder_that_is_no_run_is_one_line(folder, capsys, name, said):
    assert main(["show", str(folder / name)]) == 2
    assert said in capsys.readouterr().err


@pytest.mark.usefixtures("standard_promotion")
def test_a_config_shows_what_its_mixture_takes(folder, capsys):
    text = shown("config.py", capsys)
    for line in ("expert/params/stem/kernel", "router/params/", "mixture, 1 of 2", "dense, all 2"):
        assert line in text
    assert "mixture / dense: 0.5" in text
    assert "a training step, standard, 10 examples on one device: " in text
    assert main(["show", "config.py", "--no-step", "--expert.width", "8"]) == 0
    wider = capsys.readouterr().out
    assert "a training step" not in wider
    assert "× 3 × 8\n" in wider
    assert not (folder / "run").exists()


def test_a_run_shows_its_network_when_it_is_asked_to(described, capsys):
    assert main(["show", str(described), "--network", "--no-step", "--classes", "7"]) == 0
    text = capsys.readouterr().out
    assert "not evaluated yet" in text
    assert "expert/params/head/kernel                 4 × 7" in text


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("nothing.py", "CONFIG: no such file: nothing.py"),
        ("config.py --expert.widht 3", "--expert.widht: no such field"),
        ("config.py --data video_folder", "--classes: missing"),
        ("config.py --classes 0", "--classes: 0 is not accepted"),
        ("run --expert.width 3", "--expert.width: a run's fields stay as they are"),
        ("config.py --expert.width 0", "expert.width: 0 is not accepted"),
    ],
)
def test_a_config_that_is_refused_is_one_line(arguments, said, folder, capsys):
    assert said in refused(f"show {arguments}", folder, capsys)

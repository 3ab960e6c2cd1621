"""`jaxmoe train`: what it refuses, and what it does without validation."""

import json
import shutil
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from jaxmoe.cli import main
from jaxmoe.commands.train import notes_on_routes
from jaxmoe.runs.folder import hold_for_training
from jaxmoe.runs.stages import _experts_by_column
from jaxmoe.training import schedules
from tests.commands.tiny import CONFIG, refused, run
from tests.night import at_night


@pytest.mark.parametrize("every", [0, at_night(1)])
def test_validation_is_left_out_on_request(folder, capsys, every):
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer count
        assert run(f"train config.py --recipe standard --run.validate-every {every}") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if ": epoch" in line]
    looks = (folder / "run" / "metrics.jsonl").read_text().count("validation/accuracy")
    assert (folder / "run" / "checkpoints" / "best").is_dir() == bool(every)
    assert len(said) == looks == every


def test_experts_part_on_domains_and_their_evaluation_says_what_the_router_decides(
    folder, capsys, monkeypatch
):
    spreads = []

    def numbers_of(*args, **fields):
        numbers = schedules.numbers_of(*args, **fields)
        spreads.append(numbers[:, 2].tolist())
        return numbers

    monkeypatch.setattr("jaxmoe.training.loop.numbers_of", numbers_of)
    fields = "--data.domains 2 --data.train-clips 40 --data.test-clips 40 --run.directory apart"
    fields += " --recipe standard --training.specialize-epochs 1"
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer count
        assert run(f"train config.py {fields} --mixture.spread-left 0.5") == 0
    assert spreads == [[1.0, 0.875, 0.75, 0.625]] * 2, "in each stage by itself"
    said = capsys.readouterr().out
    assert "specialists: 4 steps" in said
    assert "on a random route" in said
    assert run("evaluate apart --attacks fgsm --no-checks") == 0
    found = json.loads((folder / "apart" / "evaluation.json").read_text())["specialization"]
    assert list(found["perfect_route"]) == list(found["column_information"]) == ["domain"]
    row = json.loads((folder / "apart" / "results.json").read_text())[0]
    assert row["routing_gain"] == found["routing_gain"]["value"]
    for text in (capsys.readouterr().out, (folder / "apart" / "results.md").read_text()):
        assert found["sentence"] in text
        assert "perfect route by domain" in text


def test_values_of_a_column_take_turns():
    names = {3: "sky", 1: "sea", 0: "land", 2: "sky"}
    dataset = SimpleNamespace(train=None, columns=lambda source: {"place": names})
    assert _experts_by_column(dataset, "place", 2).tolist() == [0, 1, 0, 0]
    assert _experts_by_column(dataset, "place", 3).tolist() == [0, 1, 2, 2]
    names[2] = ""
    with pytest.raises(ValueError, match="'place' is empty for 1 training examples"):
        _experts_by_column(dataset, "place", 2)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("", ["'domain' is not there", "no columns"]),
        ("--data.domains 2 --mixture.experts 3", ["'domain' has 2 values", "experts = 3"]),
        ("--data.domains 2 --training.specialize-column colour", ["'colour'", "known are domain"]),
    ],
)
def test_a_column_must_have_a_value_for_each_expert(overrides, said, folder, capsys):
    fields = "--training.specialize column --training.specialize-epochs 1"
    assert run(f"train config.py {fields} {overrides}") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "training.specialize_column" in line
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("gain", "load", "said"),
    [(0.01, 0.4, "the router decides nothing"), (0.5, 0.99, "collapsed"), (0.5, 0.4, None)],
)
def test_a_run_whose_routes_do_not_matter_says_so_at_its_end(tmp_path, gain, load, said):
    entries = [
        {"step": 1, "validation/accuracy": 0.2, "validation/routing_gain": 0.9 - gain},
        {
            "step": 2,
            "validation/accuracy": 0.7,
            "validation/routing_gain": gain,
            "validation/largest_load": load,
        },
        {"step": 3, "stage": "standard"},
    ]
    lines = "".join(json.dumps(entry) + "\n" for entry in entries)
    (tmp_path / "metrics.jsonl").write_text(lines)
    notes = notes_on_routes(tmp_path)
    assert len(notes) == (said is not None)
    assert all(said in note for note in notes)


@pytest.mark.nightly
def test_specialists_of_a_column_may_be_all_that_is_trained(folder, capsys):
    fields = "--data.domains 2 --data.domain-cue stripes --recipe standard"
    fields += " --training.specialize column --training.specialize-epochs 2 --training.epochs 0"
    with jax.numpy_dtype_promotion("standard"):  # optax raises a float to an integer count
        assert run(f"train config.py {fields}") == 0
    said = capsys.readouterr().out
    assert "specialists: 4 steps" in said
    assert "standard:" not in said
    assert (folder / "run" / "checkpoints" / "best").is_dir()


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        ("--data.domains 2 --data.domain-cue stripes --data.flip true", ["data.flip", "mirrored"]),
        ("--mixture.balance load --mixture.top-k 2", ["mixture.balance", "load", "top_k"]),
        (
            "--data.name npz --data.directory x --data.classes 4",
            ["data.classes", "npz has no such field", "synthetic_shapes"],
        ),
        (
            "--recipe jtdmoe --mixture.dual-weight 0.5 --training.attacked-route clean",
            ["training.attacked_route", "clean", "own with recipe jtdmoe"],
        ),
        ("--training.epochs 0", ["training.epochs", "0", "specialize_epochs"]),
        ("--training.route-weight -1", ["training.route_weight", "-1", "≥ 0"]),
        ("--mixture.spread-left 2", ["mixture.spread_left", "2", "from 0 to 1"]),
        ("--training.specialize kmeans", ["training.specialize", "kmeans", "clusters"]),
        ("--data.domains 11", ["data.domains", "11", "1 to 10"]),
        ("--optimizer.lerning-rate 1", ["optimizer.lerning-rate", "--optimizer.learning-rate"]),
        ("--optimizer.learning-rate much", ["optimizer.learning_rate", "much", "a number"]),
        ("--threat.epsilon -0.1", ["threat.epsilon", "-0.1", "≥ 0"]),
        ("--mixture.top-k 5", ["mixture.top_k", "5", "mixture.experts = 2"]),
        ("--attack.steps 0", ["attack.steps", "0", "at least 1"]),
        ("--evaluation.attacks pgdd", ["pgdd", "did you mean pgd?"]),
        ("--evaluation.epsilons -1", ["evaluation.epsilons", "-1", "≥ 0"]),
        ("--data.name video_folder", ["data.directory"]),
        ("--data.name video_folder --data.directory gone", ["data.directory", "gone"]),
        ("stray", ["stray"]),
    ],
)
def test_train_refuses_bad_fields(overrides, said, folder, capsys):
    line = refused(f"train config.py {overrides}", folder, capsys)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ("path,lable,split\na.mp4,wave,train\n", ["lable", "path, label, split"]),
        ("path,label,split\na.mp4,wave,train\nb.mp4,jump,test\n", ["jump", "train"]),
    ],
)
def test_train_refuses_a_bad_manifest(rows, said, folder, capsys):
    videos = folder / "videos"
    videos.mkdir()
    (videos / "manifest.csv").write_text(rows)
    arguments = "train config.py --data.name video_folder --data.directory videos"
    line = refused(arguments, folder, capsys)
    assert "data.manifest" in line
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("x = 1\n", ["config.py", "config()"]),
        ("def config():\n    return 3\n", ["config.py", "int", "Experiment"]),
        ("def config():\n    return 1 / 0\n", ["config.py", "ZeroDivisionError"]),
        ("def config(:\n", ["config.py", "SyntaxError"]),
        ("import no_such_module\n", ["config.py", "no_such_module"]),
    ],
)
def test_train_refuses_a_broken_config(source, said, folder, capsys):
    (folder / "config.py").write_text(source)
    line = refused("train config.py", folder, capsys)
    for part in said:
        assert part in line


def test_train_refuses_a_folder_with_another_experiment(trained, folder, capsys):
    assert main(["data", "config.py"]) == 0
    capsys.readouterr()
    line = refused("train config.py --mixture.experts 3", folder, capsys)
    for part in ("run.directory", "mixture.experts", "2", "3"):
        assert part in line


def test_help_of_train_lists_the_values_of_the_config(folder, capsys):
    assert main(["train", "config.py", "--help"]) == 0
    text = capsys.readouterr().out
    assert "--mixture.experts 2\n" in text
    assert "--optimizer.learning-rate 0.002\n      the peak" in text
    assert "--attack.steps 2\n" in text
    assert "step size as a share of ε" in text


def test_a_config_may_import_its_neighbour(folder, capsys):
    (folder / "neighbour_of_config.py").write_text(CONFIG)
    (folder / "config.py").write_text("from neighbour_of_config import config\n")
    line = refused("train config.py --mixture.top-k 5", folder, capsys)
    assert "mixture.experts = 2" in line


def test_ctrl_c_says_how_to_go_on(folder, trained, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmoe.runs.run.train", stop)
    assert main(["train", "config.py"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "the same command resumes run from its last checkpoint" in line
    assert main(["train", "config.py", "--run.directory", "new"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "begins new anew: it has no checkpoint yet" in line


def test_a_run_that_another_process_trains_is_left_alone(folder, trained, capsys):
    assert main(["data", "config.py"]) == 0
    capsys.readouterr()
    with hold_for_training(trained):
        line = refused("train config.py", folder, capsys)
        assert "run.directory: run is being trained by another process" in line
        # Before its first checkpoint too: nothing is said of training from the start.
        (trained / "checkpoints").rename(folder / "away")
        assert refused("train config.py", folder, capsys) == line
    assert main(["train", "config.py", "--run.directory", "config.py/run"]) == 2
    assert capsys.readouterr().err == "jaxmoe: config.py/run: Not a directory\n"


def test_a_config_files_types_are_checked_as_the_command_lines_are(folder, capsys):
    (folder / "config.py").write_text(CONFIG.replace(" frames=4", " frames='4'"))
    line = refused("train config.py", folder, capsys)
    assert line == "jaxmoe: data.frames: '4' is not accepted; expected an integer"
    line = refused("data config.py", folder, capsys)
    assert line == "jaxmoe: data.frames: '4' is not accepted; expected an integer"
    (folder / "config.py").write_text(CONFIG.replace("steps=2", "steps='2'"))
    assert "attack.steps: '2' is not an integer" in refused("train config.py", folder, capsys)


@pytest.mark.parametrize("file", ["config.json", "run.json"])
def test_half_a_file_of_a_run_is_named(file, folder, trained, capsys):
    assert main(["data", "config.py"]) == 0
    (trained / file).write_text('{"data": {"frames": ')
    capsys.readouterr()
    for command in ("train config.py", "evaluate run"):
        line = refused(command, folder, capsys)
        assert line.startswith(f"jaxmoe: run: its {file} is damaged: ")


def test_training_says_when_it_begins_anew_in_a_folder_that_was_used(
    folder, trained, capsys, monkeypatch
):
    monkeypatch.setattr("jaxmoe.runs.run.train", lambda *_: None)
    assert main(["train", "config.py"]) == 0
    assert "from the start" not in capsys.readouterr().out
    shutil.rmtree(trained / "checkpoints" / "latest")
    assert main(["train", "config.py"]) == 0
    assert "run has no latest checkpoint: it is trained from the start" in capsys.readouterr().out


def test_train_says_which_classes_have_no_examples(folder, capsys, monkeypatch):
    pixels = np.random.default_rng(0).integers(0, 256, (10, 16, 16, 3), np.uint8)
    labels = np.array([0, 2, 0, 2, 0, 2, 0, 2])
    classes = np.array(["cat", "dog", "owl"])
    parts = {
        "x_train": pixels[:8],
        "y_train": labels,
        "x_test": pixels[8:],
        "y_test": labels[:2] * 0,
    }
    np.savez(folder / "pictures.npz", classes=classes, **parts)
    monkeypatch.setattr("jaxmoe.runs.run.train", lambda experiment, progress: None)
    assert run("train config.py --data.name npz --data.directory pictures.npz") == 0
    said = capsys.readouterr()
    lines = [line for line in (said.out + said.err).splitlines() if "has none of" in line]
    assert "train has none of: dog (1 of 3 classes)" in lines
    assert "test has none of: dog, owl (2 of 3 classes)" in lines

"""`jaxmoe train`: what it refuses, and what it does without validation."""

import jax
import pytest

from jaxmoe.cli import main
from tests.commands.tiny import CONFIG, refused, run


@pytest.mark.parametrize("every", [0, 1])
def test_validation_is_left_out_on_request(folder, capsys, every):
    with jax.numpy_dtype_promotion("standard"):  # of optax's schedules
        assert run(f"train config.py --training.recipe standard --run.evaluate-every {every}") == 0
    said = [line for line in capsys.readouterr().out.splitlines() if "validation" in line]
    looks = (folder / "run" / "metrics.jsonl").read_text().count("validation/accuracy")
    assert (folder / "run" / "checkpoints" / "best").is_dir() == bool(every)
    assert len(said) == looks == every


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
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


def test_ctrl_c_says_how_to_resume(folder, capsys, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("jaxmoe.run.train", stop)
    assert main(["train", "config.py"]) == 130
    (line,) = capsys.readouterr().err.splitlines()
    assert "resumes run" in line

import dataclasses
import importlib.metadata
import json
import os
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest

from jaxmoe.attacks import AttackSettings
from jaxmoe.cli import COMMANDS, main
from jaxmoe.config import (
    DataConfig,
    EvaluationConfig,
    Experiment,
    ExpertConfig,
    MixtureConfig,
    RouterConfig,
    RunConfig,
    TrainingConfig,
    to_dict,
)
from jaxmoe.experiment import build_mixture
from jaxmoe.run import init_params
from jaxmoe.training import Checkpoints, adamw, init_state
from jaxmoe.training.validation import Validation

TINY = Experiment(
    data=DataConfig(frames=4, size=16, train_clips=20, validation_clips=10, test_clips=10),
    expert=ExpertConfig(width=4, stage_sizes=(1,)),
    router=RouterConfig("pooled"),
    mixture=MixtureConfig(experts=2),
    attack=AttackSettings(steps=2),
    training=TrainingConfig(epochs=1, batch_size=10),
    evaluation=EvaluationConfig(attacks=("fgsm",), batch_size=10, checkpoint="latest"),
    run=RunConfig(directory="run", evaluate_every=1, log_every=1),
)
CONFIG = f"""
from jaxmoe.config import *
from jaxmoe.attacks import AttackSettings

def config():
    return {TINY!r}
"""


@pytest.mark.skipif(sys.platform != "linux", reason="a setting of glibc")
def test_a_command_starts_with_huge_pages_unless_the_user_has_a_setting():
    script = """
import os, sys
from jaxmoe.cli import main
sys.argv[1:] = ["data", "--help"]
main()
print(os.environ["GLIBC_TUNABLES"])
"""

    def tunables(**given):
        unset = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
        done = subprocess.run(
            [sys.executable, "-c", script], env=unset | given, capture_output=True, text=True
        )
        return done.stdout.splitlines()[-1]

    assert tunables() == "glibc.malloc.hugetlb=1"
    assert tunables(GLIBC_TUNABLES="glibc.malloc.arena_max=2") == "glibc.malloc.arena_max=2"


def test_a_command_asks_for_wide_matmuls_and_keeps_the_users_flags():
    script = """
import os, sys
from jaxmoe.cli import main
sys.argv[1:] = ["data", "--help"]
main()
import jax
jax.numpy.ones(3)
print(os.environ["XLA_FLAGS"])
"""
    given = os.environ | {"XLA_FLAGS": "--xla_cpu_multi_thread_eigen=false"}
    done = subprocess.run(
        [sys.executable, "-c", script], env=given, capture_output=True, text=True, check=True
    )
    flags = done.stdout.splitlines()[-1].split()
    assert "--xla_cpu_multi_thread_eigen=false" in flags
    assert len(flags) == (2 if importlib.metadata.version("jaxlib").startswith("0.10.") else 1)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
    """The working directory, with `config.py`, and the cache in it."""
    (tmp_path / "config.py").write_text(CONFIG)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("JAXMOE_CACHE", str(tmp_path / "cache"))
    return tmp_path


@pytest.fixture
def trained(folder) -> pathlib.Path:
    """A run that looks trained: its latest checkpoint has fresh params."""
    run = folder / "run"
    run.mkdir()
    (run / "config.json").write_text(json.dumps(to_dict(TINY)))
    params = init_params(TINY, build_mixture(TINY, 10))
    Checkpoints(run).save("latest", 1, init_state(params, adamw(1e-2, 1.0)), {"finished": True})
    return run


def run(arguments: str) -> int:
    """The exit code of a command."""
    return main(arguments.split())


def refused(arguments: str, folder: pathlib.Path, capsys) -> str:
    """The one line on standard error of a command that exits with 2 and writes nothing."""
    before = sorted(folder.rglob("*"))
    assert main(arguments.split()) == 2
    output = capsys.readouterr()
    assert output.out == ""
    (line,) = output.err.splitlines()
    assert sorted(folder.rglob("*")) == before
    return line


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
        ("path,label,split,colour\na.mp4,wave,train,red\n", ["colour", "path, label, split"]),
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


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("trian config.py", ["trian", "train"]),
        ("train", ["CONFIG.py", "--help"]),
        ("train gone.py", ["CONFIG", "gone.py"]),
        ("data", ["CONFIG.py", "--name"]),
        ("data --nam ucf101", ["data.nam", "--data.name"]),
        ("evaluate", ["RUN"]),
        ("evaluate gone", ["run", "gone"]),
        ("sweep gone", ["run", "gone"]),
        ("transfer gone", ["config.json", "gone"]),
        ("transfer gone gone", ["gone", "2 times"]),
        ("transfer gone lost", ["run", "gone"]),
        ("quickstart --folder x", ["--folder", "--directory"]),
        ("benchmark --only atack-loop", ["atack-loop", "attack-loop"]),
        ("benchmark --output gone/x.json", ["--output", "gone"]),
    ],
)
def test_other_bad_input_is_one_line(arguments, said, folder, capsys):
    line = refused(arguments, folder, capsys)
    for part in said:
        assert part in line


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("--attacks pgd j-tlgaa", ["j-tlgaa", "did you mean j-tlga?"]),
        ("--epsilons -0.1", ["--epsilons", "-0.1", "≥ 0"]),
        ("--epsilons 8/2x5", ["--epsilons", "8/2x5"]),
        ("--steps 0", ["attack.steps", "0", "at least 1"]),
        ("--batch-size 0", ["--batch-size", "0"]),
        ("--seed -1", ["--seed", "-1"]),
        ("--epsilon 8/255", ["--epsilon", "--epsilons"]),
        ("--checkpoint first", ["--checkpoint", "first", "latest"]),
    ],
)
def test_evaluate_refuses_bad_options(options, said, trained, folder, capsys):
    line = refused(f"evaluate run {options}", folder, capsys)
    for part in said:
        assert part in line


def test_evaluate_refuses_a_checkpoint_of_another_model(trained, folder, capsys):
    other = dataclasses.replace(TINY, expert=dataclasses.replace(TINY.expert, width=8))
    (trained / "config.json").write_text(json.dumps(to_dict(other)))
    assert main(["data", "config.py"]) == 0  # prepares the clips, which may be written
    capsys.readouterr()
    line = refused("evaluate run", folder, capsys)
    assert "checkpoint" in line
    assert "another model" in line


def test_train_refuses_a_folder_with_another_experiment(trained, folder, capsys):
    assert main(["data", "config.py"]) == 0
    capsys.readouterr()
    line = refused("train config.py --mixture.experts 3", folder, capsys)
    for part in ("run.directory", "mixture.experts", "2", "3"):
        assert part in line


def test_evaluate_writes_what_it_says(trained, folder, capsys):
    assert run("evaluate run --attacks fgsm --epsilons 8/255 --seed 3") == 0
    output = capsys.readouterr()
    assert output.err == ""
    assert "fgsm" in output.out
    for name in ("results.json", "results.csv", "results.md", "robust_accuracy.png"):
        assert (trained / name).stat().st_size
    rows = json.loads((trained / "results.json").read_text())
    assert [row["attack"] for row in rows] == ["clean", "fgsm", "worst-case"]
    for row in rows:
        assert 0 <= row["robust_accuracy"] <= 1
        assert (row["n"], row["seed"]) == (10, 3)
        assert row["seconds"] >= 0
    assert rows[1]["epsilon"] == 8 / 255
    assert rows[1]["gradient_evaluations"] == 1
    details = json.loads((trained / "evaluation.json").read_text())
    assert details["gflops"]["ratio"] < 1
    assert details["checks"]

    assert run("evaluate run --attacks pgd --alpha 0 --output elsewhere") == 0
    assert json.loads((trained / "results.json").read_text()) == rows
    details = json.loads((folder / "elsewhere" / "evaluation.json").read_text())
    assert (details["settings"]["alpha"], details["checkpoint"]) == (0, "latest")
    still = json.loads((folder / "elsewhere" / "results.json").read_text())[1]
    assert still["attack"] == "pgd"
    assert np.ptp(still["loss_trace"]) == 0  # steps of length 0


def test_evaluate_takes_a_cascade_gradients_and_keeps_clips_and_goes_on(
    trained, folder, capsys, monkeypatch
):
    from jaxmoe.evaluation import Programs

    command = "evaluate run --attacks fgsm --cascade pgd --gradient hard soft --epsilons 0.01"
    attack, taken = Programs.attack, []

    def stopped(self, *arguments):
        taken.append(arguments[0])
        if taken == ["fgsm", "fgsm", "pgd"]:
            raise KeyboardInterrupt
        return attack(self, *arguments)

    monkeypatch.setattr(Programs, "attack", stopped)
    assert run(f"{command} --save-examples") == 130
    assert "the same command goes on from run/evaluation.journal" in capsys.readouterr().err
    monkeypatch.setattr(Programs, "attack", attack)
    assert run(f"{command} --save-examples") == 0
    output = capsys.readouterr().out
    assert "going on from run/evaluation.journal" in output
    assert "auto-attack-custom" in output
    details = json.loads((trained / "evaluation.json").read_text())
    assert details["settings"]["gradient"] == ["hard", "soft"]
    assert [stage["attack"] for stage in details["cascades"]] == ["pgd"]
    assert not (trained / "evaluation.journal").exists()
    kept = [np.load(file) for file in (trained / "examples").rglob("*.npz")]
    assert kept
    assert all(clips["x_adv"].shape[1:] == (4, 16, 16, 3) for clips in kept)


def test_evaluates_help_names_every_attack(capsys):
    from jaxmoe.attacks import ATTACKS, CASCADES

    assert main(["evaluate", "--help"]) == 0
    words = capsys.readouterr().out.replace(",", " ").split()
    assert not {*ATTACKS, *CASCADES} - set(words)


def test_the_commands_know_every_number_of_a_grid():
    from jaxmoe.commands import evaluate
    from jaxmoe.evaluation import grid

    assert evaluate.NUMBERS == grid.NUMBERS


def test_sweep_runs_a_grid_of_epsilons_on_the_test_clips_and_of_numbers_on_validation(trained):
    sweep = ["sweep", str(trained), "--attacks", "fgsm", "pgd", "--epsilons", "0", "0.5"]
    assert main(sweep) == 0
    found = json.loads((trained / "sweep" / "sweep.json").read_text())
    assert (found["split"], found["compilations"]) == ("test", {"fgsm": 1, "pgd": 1})
    setting = [(row["attack"], row["epsilon"]) for row in found["rows"]]
    assert setting == [("fgsm", 0), ("fgsm", 0.5), ("pgd", 0), ("pgd", 0.5)]
    assert found["rows"][0]["robust_accuracy"] == found["clean_accuracy"]
    assert (trained / "sweep" / "sweep.png").stat().st_size > 0
    assert not (trained / "sweep" / "evaluation.journal").exists()
    output = str(trained / "numbers")
    assert (
        main([*sweep[:3], "pgd", "--lambdas", "0", "--alphas", "0", "1", "--output", output]) == 0
    )
    found = json.loads((trained / "numbers" / "sweep.json").read_text())
    assert found["split"] == "validation"
    assert [row["alpha"] for row in found["rows"][:2]] == [0, 1]
    assert {row["n"] for row in found["rows"]} == {10}
    assert len(found["rows"]) == 5 * 2  # of the default grid of ε


@pytest.fixture
def described(folder) -> pathlib.Path:
    """The second of two runs that have a config and no checkpoint yet: `run`, `other/run`."""
    for name in ("run", "other/run"):
        run = folder / name
        run.mkdir(parents=True)
        (run / "config.json").write_text(json.dumps(to_dict(TINY)))
    return run


@pytest.fixture
def pair(described, folder) -> pathlib.Path:
    """The same two runs, with fresh params of two seeds."""
    for seed, run in enumerate((folder / "run", described)):
        other = dataclasses.replace(TINY, run=dataclasses.replace(TINY.run, seed=seed))
        params = init_params(other, build_mixture(TINY, 10))
        state = init_state(params, adamw(1e-2, 1.0))
        Checkpoints(run).save("latest", 1, state, {"finished": True})
    return described


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
        ("data", "size", 8, ["data.size = 8", "run has 16", "same input shape"]),
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
    assert "other/run has other test clips than run" in line


def test_data_shows_classes_and_names_skipped_files(folder, capsys):
    videos = folder / "videos"
    videos.mkdir()
    (videos / "manifest.csv").write_text("path,label,split\na [b].mp4,wave,train\n")
    (videos / "a [b].mp4").write_bytes(b"no video")
    assert run("data --name video_folder --directory videos") == 2
    output = capsys.readouterr()
    assert "data.directory" in output.err or "data.manifest" in output.err

    assert main(["data", "config.py"]) == 0
    output = capsys.readouterr()
    assert output.err == ""
    for part in ("10 classes", "moves_left", "train", "20"):
        assert part in output.out


def test_help_names_every_command(capsys):
    assert main([]) == 0
    overview = capsys.readouterr().out
    for command in COMMANDS:
        assert command in overview
        assert main([command, "--help"]) == 0
        output = capsys.readouterr()
        assert output.out.startswith(f"usage: jaxmoe {command}")
        assert output.err == ""


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


def test_another_librarys_value_error_keeps_its_traceback(folder, monkeypatch):
    def broken(*_, **__):
        return np.zeros(3).reshape(2)

    monkeypatch.setattr("jaxmoe.run.train", broken)
    with pytest.raises(ValueError, match="reshape"):
        main(["train", "config.py"])


def test_numbers_that_are_not_finite_are_one_line_in_every_command(trained, monkeypatch, capsys):
    from jaxmoe.evaluation.guards import check_finite_outputs

    def broken(*_, **__):
        batch = {"index": np.arange(2), "valid": np.ones(2, bool)}
        check_finite_outputs(np.zeros(2, bool), batch, "tla-m", 0.1)

    monkeypatch.setattr("jaxmoe.evaluation.sweep_grid", broken)
    assert main(["sweep", str(trained), "--attacks", "tla-m", "--lam", "1e38"]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert lines == [
        "jaxmoe: tla-m at ε = 0.1: outputs that are not finite on the clips with index [0, 1]"
    ]


def test_a_sweep_refuses_a_number_before_it_runs_any(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.evaluation.sweep_grid", lambda *_, **__: pytest.fail("ran"))
    assert main(["sweep", str(trained), "--attacks", "tla-m", "--lam", "0", "-1"]) == 2
    assert "attack.lam: -1.0 is not a finite number" in capsys.readouterr().err


def test_other_clips_than_the_run_was_trained_on_are_refused(trained, capsys):
    splits = {"train": "0", "validation": "0", "test": "0"}
    (trained / "run.json").write_text(json.dumps({"splits": splits}))
    assert main(["evaluate", str(trained)]) == 2
    assert "holds a run with other train clips" in capsys.readouterr().err


def test_a_run_that_was_stopped_says_so(trained, monkeypatch, capsys):
    monkeypatch.setattr("jaxmoe.commands.evaluate._run_and_write", lambda *_, **__: None)
    assert main(["evaluate", str(trained)]) == 0
    assert "stopped before the end" not in capsys.readouterr().out
    monkeypatch.setattr("jaxmoe.run._is_finished", lambda run: False)
    assert main(["evaluate", str(trained)]) == 0
    assert f"{trained} was stopped before the end of its training" in capsys.readouterr().out


def test_skipped_clips_are_named_up_to_ten(folder, capsys):
    from jaxmoe.commands.arguments import notes_on_clips

    @dataclasses.dataclass
    class Found:
        skipped: tuple = tuple((f"video {i}.mp4", "no frames") for i in range(12))
        padded: tuple = (("short.mp4", "3 frames"),)

    text = "\n".join(notes_on_clips(Found(), "run/run.json"))
    assert "12 clips were skipped" in text
    assert "video 9.mp4: no frames" in text
    assert "video 10.mp4" not in text
    assert "2 more, all in run/run.json" in text
    assert "short.mp4" in text
    assert "video 11.mp4" in "\n".join(notes_on_clips(Found(), None))


def test_piped_progress_is_one_line_an_epoch():
    import io

    from jaxmoe.reporting.progress import PlainProgress

    stream, now = io.StringIO(), [0.0]
    progress = PlainProgress(stream, clock=lambda: now[0])
    progress.stage("at_m", 200, 0)
    for step in range(100):
        now[0] += 0.5
        progress.step({"adversarial/loss": 1.5, "adversarial/gradient_norm": 1} if step else None)
    progress.epoch(1, Validation(0.5, 0.25, 1.0, 0.4))
    first, second = stream.getvalue().splitlines()
    assert "compiling" in first
    for part in ("0:50", "epoch 1", "loss 1.5", "50.0%", "25.0%", "40%"):
        assert part in second
    for _ in range(130):
        now[0] += 0.5
        progress.step(None)
    assert len(stream.getvalue().splitlines()) == 3


def test_bars_survive_names_with_brackets():
    import io

    from jaxmoe.reporting.progress import BarProgress

    stream = io.StringIO()
    with BarProgress(stream) as progress:
        progress.data(1, 2)
        progress.data(2, 2)
        progress.say("skipped [/red].mp4")
        progress.stage("j_tlat", 2, 0)
        progress.step({"router/loss": 0.5, "global/loss": 1.0})
        progress.epoch(1, Validation(0.5, None, 1.0, 0.4))
        progress.evaluation(1, 3, "pgd ε = 0.03")
    assert "skipped [/red].mp4" in stream.getvalue()
    assert "j_tlat" in stream.getvalue()
    assert "robust" not in stream.getvalue()  # clean training knows nothing of it
